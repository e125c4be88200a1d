"""LoRA: a low-rank update of every target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from subspace.errors import ValueRangeError
from subspace.text import listed, shown
from subspace.training.method import Option
from subspace.training.methods._low_rank import LowRank

if TYPE_CHECKING:
    from torch import Tensor, nn
    from typing_extensions import Self

    from subspace.checkpoints.fused_layouts import Ranges
    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["METHOD", "LoRA"]

_GROUPS = ("q", "k", "v")


@dataclass(frozen=True)
class LoRA(LowRank):
    """A low-rank update ``delta_W = scale * B A`` of every target, of which only A and B are trained.

    Attributes
    ----------
    r, alpha, rslora, dropout, init, seed, freeze, lr_ratio : see `LowRank`
    groups : which parts of a fused layer are adapted, each by a pair of its own: names such as ("q", "v"), whose rows
        the type of the model says; or, where they are equal blocks in that order, as loralib's ``enable_lora``:
        (True, False, True) for q and v of a fused q, k, v. None: the layer is one.
    rows : the rows of each adapted group in one layer, which `for_layer` finds; no setting

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
            "Parts of a fused q, k, v layer that are adapted, each with its own A and B, by name, such as q,v; as "
            "loralib writes it, 1,0,1, only where the parts are equal blocks.",
            "groups",
        ),
    )

    groups: tuple[bool, ...] | tuple[str, ...] | None = None
    rows: tuple[Ranges, ...] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups is not None:
            object.__setattr__(self, "groups", _checked_groups(self.groups))

    def document(self) -> dict[str, Any]:
        """Return the settings as plain values by name, and the method's name as ``kind``."""
        return {name: value for name, value in super().document().items() if name != "rows"}

    def for_layer(self, model: nn.Module, module: str) -> Self:
        """Return the method with the rows of its groups in one layer; by blocks where loralib could express them."""
        if self.groups is None:
            return self
        from subspace.training.fused_rows import rows_of

        blocks, rows = rows_of(model, module, self.groups)
        return replace(self, groups=blocks or self.groups, rows=rows)

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


def _checked_groups(groups: Sequence[bool] | Sequence[str] | str) -> tuple[bool, ...] | tuple[str, ...]:
    """Groups by name in the order of q, k, v, or which of equal blocks are on."""
    found = tuple(groups.split(",") if isinstance(groups, str) else groups)
    names = [group for group in found if isinstance(group, str)]
    if not any(found):
        raise ValueRangeError("No group of the fused layer is adapted; turn on at least one in `groups`")
    if not names:
        return tuple(map(bool, found))
    if unknown := [group for group in found if group not in _GROUPS]:
        raise ValueRangeError(
            f"Unknown group '{shown(unknown[0])}' of a fused layer; give `groups` as some of {listed(_GROUPS)}, or as "
            "1,0,1 for its equal blocks"
        )
    return tuple(name for name in _GROUPS if name in names)


METHOD = LoRA
