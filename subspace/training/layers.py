"""What an adapted module has beside its own, whatever kind of layer it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from subspace.training.methods import IA3, LoRA
from subspace.training.shapes import group_rows, sizes

__all__ = ["PARTS", "AdaptedLayer"]

PARTS = ("lora_A", "lora_B", "ia3_l")


class AdaptedLayer(nn.Module):
    """What an adapted module has beside its own.

    The factors of the active adapter are its parameters ``lora_A`` and ``lora_B`` (IA3: ``ia3_l``), as loralib's layers
    have them; those of any other adapter are there as ``lora_A@name``.

    Attributes
    ----------
    methods : the `LoRA` or `IA3` of each adapter
    active : name of the adapter that is applied, None for the base alone
    merged : whether the active adapter is in the weights now
    feedforward : names of the IA3 adapters that rescale this layer's inputs rather than its outputs
    merge_on_eval : whether ``eval()`` merges and ``train()`` unmerges, as loralib's ``merge_weights``
    """

    methods: dict[str, LoRA | IA3]
    active: str | None
    merged: bool
    merge_on_eval: bool
    feedforward: set[str]
    original: tuple[nn.Parameter, nn.Parameter | None] | None

    def begin(self) -> None:
        """Make room for adapters."""
        self.methods, self.active, self.merged, self.original = {}, None, False, None
        self.merge_on_eval, self.feedforward = False, set()

    def end(self) -> None:
        """Take everything away that `begin` made."""
        for name in ("methods", "active", "merged", "merge_on_eval", "feedforward", "original"):
            del self.__dict__[name]

    def hold(self, name: str, method: LoRA | IA3, factors: dict[str, Tensor]) -> None:
        """Take a new adapter, which is not active yet."""
        self.methods[name] = method
        for part, value in factors.items():
            self.register_parameter(f"{part}@{name}", nn.Parameter(value))

    def drop(self, name: str) -> None:
        """Forget an adapter."""
        if self.active == name:
            self.use(None)
        del self.methods[name]
        self.feedforward.discard(name)
        for part in PARTS:
            self._parameters.pop(f"{part}@{name}", None)

    def use(self, name: str | None) -> None:
        """Apply one adapter from now on, or none; one that is merged leaves the weights first."""
        self.unmerge()
        for part in PARTS:
            if part in self._parameters:
                self._parameters[f"{part}@{self.active}"] = self._parameters.pop(part)
        self.active = name
        for part in PARTS:
            if f"{part}@{name}" in self._parameters:
                self._parameters[part] = self._parameters.pop(f"{part}@{name}")

    def factor(self, part: str, name: str) -> nn.Parameter:
        """``lora_A``, ``lora_B`` or ``ia3_l`` of one adapter."""
        found: nn.Parameter = self._parameters[part if name == self.active else f"{part}@{name}"]
        return found

    weight: nn.Parameter
    bias: nn.Parameter | None

    @property
    def scaling(self) -> float:
        """Scale of the active adapter, 1 without one; under the name that loralib's layers have."""
        method = self.methods.get(self.active or "")
        return method.scale if isinstance(method, LoRA) else 1.0

    @property
    def enable_lora(self) -> list[bool]:
        """Which groups of rows the active adapter adapts; under the name that loralib's layers have."""
        method = self.methods.get(self.active or "")
        return list(method.groups) if isinstance(method, LoRA) and method.groups else [True]

    def train(self, mode: bool = True) -> Any:
        """Set the mode; merge or unmerge, if that was asked for."""
        super().train(mode)
        if self.merge_on_eval:
            self.unmerge() if mode else self.merge()
        return self

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output with the active adapter."""
        method = self.methods.get(self.active or "")
        if method is None or self.merged:
            return super().forward(x, *args, **kwargs)
        if isinstance(method, IA3):
            return self._rescaled(x, *args, **kwargs)
        A, B = self.lora_A, self.lora_B
        if method.dropout and self.training:
            return super().forward(x, *args, **kwargs) + self._update(x, A, B, method)
        return self._with_update(x, A, B, method)

    def _with_update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        """The output with the update; a kind that can do both at once does."""
        return super().forward(x) + self._update(x, A, B, method)

    def _update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        """What the adapter adds to the output, with dropout in training."""
        raise NotImplementedError

    def _rescaled(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Output of an IA3 layer."""
        factors = self.ia3_l
        if self.is_feedforward():
            return super().forward(x * self.along_inputs(factors), *args, **kwargs)
        return super().forward(x, *args, **kwargs) * self.along_outputs(factors)

    def is_feedforward(self) -> bool:
        """Whether the active IA3 adapter rescales inputs."""
        return self.active in self.feedforward

    def along_inputs(self, factors: Tensor) -> Tensor:
        """IA3's factors in the shape in which they multiply an input."""
        return factors.flatten()

    def along_outputs(self, factors: Tensor) -> Tensor:
        """IA3's factors in the shape in which they multiply an output."""
        return factors.flatten()

    @torch.no_grad()
    def delta_weight(self, name: str) -> Tensor:
        """``delta_W`` of one adapter in the layout of this module's own weight, in float32 at least."""
        method, weight = self.methods[name], self.weight
        if isinstance(method, IA3):
            return self._rescaling(self.factor("ia3_l", name), weight, inputs=name in self.feedforward)
        factors = self.factor("lora_A", name), self.factor("lora_B", name)
        A, B = (factor.to(torch.promote_types(factor.dtype, torch.float32)) for factor in factors)
        return self._composed(A, B, method)

    def _composed(self, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        """``scale * B A`` in the layout of the weight."""
        d_out, d_in = sizes(self)
        delta_W = A.new_zeros(d_out, d_in)
        blocks = B.split([stop - start for start, stop in group_rows(self, method)])
        for place, A_g, B_g in zip(group_rows(self, method), A.split(method.r), blocks, strict=True):
            delta_W[slice(*place)] = method.scale * (B_g @ A_g)
        return delta_W

    def _rescaling(self, factors: Tensor, weight: Tensor, *, inputs: bool) -> Tensor:
        return weight * (factors.to(weight.dtype) - 1)

    def merge(self) -> None:
        """Put the active adapter into the weights; the weights that were are kept, and come back with `unmerge`."""
        if self.active not in self.methods or self.merged:
            return
        weight: nn.Parameter = self._parameters["weight"]
        bias = self._parameters.get("bias")
        self.original = weight, bias
        with torch.no_grad():
            merged = (weight + self.delta_weight(self.active)).to(weight.dtype)
        # a parameter of its own: a weight that is tied to another module's must not change there
        self.weight = nn.Parameter(merged, requires_grad=weight.requires_grad)
        if bias is not None and self.ia3_rescales_bias():
            factors = self.ia3_l.detach().flatten().to(bias.dtype)
            self.bias = nn.Parameter(bias.detach() * factors, requires_grad=bias.requires_grad)
        self.merged = True

    def ia3_rescales_bias(self) -> bool:
        """Whether the active adapter multiplies the output, and so the bias."""
        return isinstance(self.methods[self.active or ""], IA3) and not self.is_feedforward()

    def unmerge(self) -> None:
        """Put back the very weights that were there before `merge`."""
        if not self.merged or self.original is None:
            return
        self.weight, bias = self.original
        if bias is not None:
            self.bias = bias
        self.merged, self.original = False, None
