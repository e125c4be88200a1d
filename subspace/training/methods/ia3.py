"""IA3: learned factors that rescale what targets give, or what goes into feedforward ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training import peft_fields
from subspace.training.method import Layers, Method, Option
from subspace.training.module_patterns import Exact, as_suffixes, last_parts, matches

if TYPE_CHECKING:
    from torch import Tensor, nn

    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["IA3", "METHOD"]

_PART = "ia3_l"


@dataclass(frozen=True)
class IA3(Method):
    """Learned factors, one for every output of a target, or for every input of a feedforward one; they start at 1.

    Attributes
    ----------
    feedforward : patterns of the targets whose inputs are rescaled

    References
    ----------
    Liu et al., arXiv 2205.05638, section 3.3; peft/tuners/ia3/layer.py.
    """

    name = "ia3"
    about = "factors that rescale activations"
    lr = 1e-2
    parts = (_PART,)
    stored: ClassVar[Mapping[str, str]] = {_PART: _PART}
    options = (
        Option(
            "--feedforward",
            "feedforward",
            "IA3 targets whose inputs are rescaled instead of their outputs; may be repeated.",
            "names",
        ),
    )

    feedforward: tuple[str, ...] = ()

    def require_targets(self, chosen: Sequence[str]) -> None:
        """Refuse a feedforward pattern that matches no target."""
        for pattern in self.feedforward:
            if not any(matches(name, pattern) for name in chosen):
                raise ValueRangeError(
                    f"No target matches '{shown(pattern)}', whose inputs are to be rescaled; the targets are "
                    f"{last_parts(chosen)}: add it to `targets`, or change `feedforward`"
                )

    def remembered(self, module: str) -> bool:
        """Return whether the inputs of a layer are rescaled, and not its outputs."""
        return any(matches(module, pattern) for pattern in self.feedforward)

    def start(self, layer: nn.Module, module: str) -> dict[str, Tensor]:
        """Return ones: (1, d_in) for inputs, (d_out, 1) for outputs, and for a convolution as its weight broadcasts."""
        import torch

        from subspace.training.layer_shapes import kind_of, sizes, weight_of

        kind, inputs = kind_of(layer), self.remembered(module)
        if kind == "embedding":
            raise ValueRangeError(
                f"IA3 cannot adapt an embedding: {shown(module)} is one; leave it out of the targets"
            )
        d_out, d_in = sizes(layer)
        shape: tuple[int, ...] = (1, d_in) if inputs else (d_out, 1)
        weight = weight_of(layer)
        if kind == "conv":
            shape = (1, d_in if inputs else d_out, *(1 for _ in weight.shape[2:]))
        return {_PART: torch.ones(shape, dtype=torch.float32, device=weight.device)}

    def output(self, layer: AdaptedLayer, adapter: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output of the rescaled input, or the rescaled output."""
        factors = layer.factors(adapter)[_PART]
        if layer.layer_kind != "conv":
            factors = factors.flatten()
        if layer.remembered[adapter]:
            return layer.plain((x * factors).to(x.dtype), *args, **kwargs)
        out = layer.plain(x, *args, **kwargs)
        return (out * factors).to(out.dtype)

    def delta_weight(self, layer: AdaptedLayer, adapter: str) -> Tensor:
        """Return ``W (l - 1)``, along the inputs or along the outputs."""
        factors, weight = layer.factors(adapter)[_PART], layer.base_weight
        if layer.layer_kind == "conv1d":
            factors = factors.t()
        elif layer.layer_kind == "conv":
            shape = (1, -1) if layer.remembered[adapter] else (-1, 1)
            factors = factors.view(*shape, *(1 for _ in weight.shape[2:]))
        return weight * (factors.to(weight.dtype) - 1)

    def merged_bias(self, layer: AdaptedLayer, adapter: str, bias: Tensor) -> Tensor | None:
        """Return the rescaled bias where outputs are rescaled."""
        if layer.remembered[adapter]:
            return None
        return bias * layer.factors(adapter)[_PART].detach().flatten().to(bias.dtype)

    def peft_config(self, model: nn.Module, layers: Layers, common: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of PEFT's ``IA3Config``."""
        names = [name for name, layer in layers if layer.remembered[layer.active or ""]]
        inputs: list[str] | str = as_suffixes(model, names)
        targets = common["target_modules"]
        if not set(inputs) <= set(targets):  # which PEFT asks for, of the words themselves
            inputs, targets = names, [name for name, _ in layers]
        # PEFT also takes any target whose name ends in the same letters
        also = {name for name, _ in layers if name.endswith(tuple(inputs))}
        if isinstance(common["target_modules"], str) or not also <= set(names):
            inputs, targets = "|".join(map(re.escape, names)) or [], common["target_modules"]
        own = {"target_modules": targets, "feedforward_modules": inputs, "init_ia3_weights": True}
        return {"peft_type": "IA3", **common, **own}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], module: str, stored: Mapping[str, Tensor]) -> IA3:
        """Return IA3 with this one module as a feedforward one, or with none."""
        names = config.get("feedforward_modules")
        inputs = peft_fields.matches(names, module, where="feedforward_modules", any_end=True)
        return cls(feedforward=(Exact(module),) if inputs else ())


METHOD = IA3
