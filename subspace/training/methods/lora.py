"""LoRA: a low-rank update of every target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.errors import ValueRangeError
from subspace.training.method import Option
from subspace.training.methods._low_rank import LowRank

if TYPE_CHECKING:
    from torch import Tensor

    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["METHOD", "LoRA"]


@dataclass(frozen=True)
class LoRA(LowRank):
    """A low-rank update ``delta_W = scale * B A`` of every target, of which only A and B are trained.

    Attributes
    ----------
    r, alpha, rslora, dropout, init, seed, freeze, lr_ratio : see `LowRank`
    groups : which of the equal groups of rows of a fused layer are adapted, each by a pair of its own (loralib's
        ``enable_lora``): (True, False, True) for q and v of a fused q, k, v. None: the layer is one.

    References
    ----------
    Hu et al., arXiv 2106.09685v2, section 4.1.
    """

    name = "lora"
    about = "low-rank updates of the targets"
    formats = ("peft", "loralib")
    options = (
        *LowRank.options,
        Option(
            "--groups",
            "groups",
            "Groups of rows of a fused layer that are adapted, each with its own A and B; 1,0,1 is q and v of a "
            "fused q, k, v.",
            "groups",
        ),
    )

    groups: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups is not None and not any(self.groups):
            raise ValueRangeError("No group of the fused layer is adapted; turn on at least one in `groups`")

    def require_format(self, format: str) -> None:
        """Refuse loralib's format for a start that is taken off the weight: a reader of the file could not tell."""
        super().require_format(format)
        if self.of_weight and format == "loralib":
            raise ValueRangeError(
                f"The format loralib cannot hold an adapter that starts from a part of the weight, as with `init` "
                f"{self.init}; give `format` peft"
            )

    def output(self, layer: AdaptedLayer, adapter: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output with the update, with dropout in training."""
        from subspace.training.methods import _lora_layers

        return _lora_layers.output(layer, self, *self.tensors(layer, adapter).values(), x, *args, **kwargs)

    def delta_weight(self, layer: AdaptedLayer, adapter: str) -> Tensor:
        """Return ``scale * B A`` in the layout of the weight."""
        from subspace.training.methods import _lora_layers

        return _lora_layers.composed(layer, self, *self.tensors(layer, adapter).values())


METHOD = LoRA
