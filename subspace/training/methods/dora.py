"""DoRA: a low-rank update of the direction of every row of a weight, and a trained norm for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.errors import ValueRangeError
from subspace.training.method import Layers
from subspace.training.methods._low_rank import LowRank

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["METHOD", "DoRA"]

_MAGNITUDE = "lora_magnitude_vector"


@dataclass(frozen=True)
class DoRA(LowRank):
    """``W' = m (W + scale * B A) / ||W + scale * B A||``, with a norm and a trained m, the magnitude, for each output.

    The magnitudes start at the norms of W. As in the paper no gradient flows through the norm that divides.

    Attributes
    ----------
    r, alpha, rslora, dropout, init, seed, freeze, lr_ratio : see `LowRank`; with `lr_ratio` m has the rate of A

    References
    ----------
    Liu et al., arXiv 2402.09353, equation 5 and section 4.3; huggingface/peft 0.21, tuners/lora/dora.py.
    """

    name = "dora"
    about = "low-rank updates of the direction of each row, and its magnitude"
    parts = (*LowRank.parts, _MAGNITUDE)
    stored: ClassVar[Mapping[str, str]] = {**LowRank.stored, _MAGNITUDE: _MAGNITUDE}

    def start(self, layer: nn.Module, module: str) -> dict[str, Tensor]:
        """Return A, B and the norms of the rows of the weight, or of the columns of an embedding: one per output."""
        from subspace.training.layer_shapes import matrix_of

        norms = matrix_of(layer).norm(dim=1)
        if not norms.all():
            raise ValueRangeError(
                f"DoRA cannot adapt a weight with rows of zeros, which have no direction: {int((norms == 0).sum())} of "
                f"{len(norms)}; leave it out of the targets"
            )
        return {**super().start(layer, module), _MAGNITUDE: norms}

    def output(self, layer: AdaptedLayer, adapter: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output of the weight with its rows turned and rescaled."""
        from subspace.training.methods import _dora_layers

        return _dora_layers.output(layer, self, *self._held(layer, adapter), x, *args, **kwargs)

    def delta_weight(self, layer: AdaptedLayer, adapter: str) -> Tensor:
        """Return ``W' - W`` in the layout of the weight, magnitudes and all."""
        from subspace.training.methods import _dora_layers

        return _dora_layers.change(layer, self, *self._held(layer, adapter))

    def _held(self, layer: AdaptedLayer, adapter: str) -> tuple[Tensor, Tensor, Tensor]:
        A, B, m = self.tensors(layer, adapter).values()
        return A, B, m

    def peft_tensors(self, layer: AdaptedLayer, adapter: str) -> dict[str, Tensor]:
        """Return A, B and the magnitudes under PEFT's names; those of a convolution as its output broadcasts."""
        m = layer.factors(adapter)[_MAGNITUDE].detach()
        if layer.layer_kind == "conv":
            m = m.view(1, -1, *(1 for _ in layer.weight.shape[2:]))
        return {**super().peft_tensors(layer, adapter), _MAGNITUDE: m}

    def peft_config(self, model: nn.Module, layers: Layers, common: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of PEFT's ``LoraConfig`` with ``use_dora``."""
        return {**super().peft_config(model, layers, common), "use_dora": True}

    @classmethod
    def is_in(cls, config: Mapping[str, Any]) -> bool:
        """Return whether a configuration is of DoRA."""
        return config.get("peft_type") in ("LORA", None) and bool(config.get("use_dora"))

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], module: str, stored: Mapping[str, Tensor]) -> DoRA:
        """Return DoRA with the rank of the stored factors and the module's alpha."""
        return super().from_peft({**config, "use_dora": False}, module, stored)


METHOD = DoRA
