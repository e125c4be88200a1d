"""Layers that carry adapters: the user's own modules, of a class derived from theirs while they are adapted.

The module stays the same object with the same parameters under the same names, so that whatever refers to it goes on to
work; ``isinstance`` and hooks too. Removing the last adapter gives it its class back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.adapted_layer import AdaptedLayer, taken_name
from subspace.training.layer_shapes import group_rows, kind_of, sizes
from subspace.training.lowrank import low_rank_linear
from subspace.training.methods import LoRA

__all__ = ["adapted_class"]


class _Linear(AdaptedLayer):
    at_once = True

    def _with_update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        return low_rank_linear(
            x, self.weight, self.bias, A, B, scale=method.scale, rows=group_rows(self, method)
        )

    def _update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        h = functional.linear(functional.dropout(_as_factor(x, A), method.dropout, self.training), A)
        rows, (d_out, _) = group_rows(self, method), sizes(self)
        if rows == ((0, d_out),):
            return functional.linear(h, B) * method.scale
        added = h.new_zeros(*h.shape[:-1], d_out)
        blocks = B.split([stop - start for start, stop in rows])
        for place, part, B_g in zip(rows, h.split(method.r, dim=-1), blocks, strict=True):
            added[..., slice(*place)] = functional.linear(part, B_g)
        return added * method.scale


def _as_factor(x: Tensor, A: Tensor) -> Tensor:
    """An input in the type of a factor; autocast sees to that itself."""
    kind = x.device.type
    return x if kind != "meta" and torch.is_autocast_enabled(kind) else x.to(A.dtype)


class _Conv1D(_Linear):
    """transformers' Conv1D: ``x W + bias`` with W (d_in, d_out)."""

    def _with_update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        return low_rank_linear(
            x, self.weight.t(), self.bias, A, B, scale=method.scale, rows=group_rows(self, method)
        )

    def _composed(self, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        return super()._composed(A, B, method).t()

    def _rescaling(self, factors: Tensor, weight: Tensor, *, inputs: bool) -> Tensor:
        return super()._rescaling(factors.t(), weight, inputs=inputs)


class _Embedding(AdaptedLayer):
    """W (num_embeddings, d): ``delta_W = scale * (B A)^T`` with A (r, num_embeddings), B (d, r)."""

    def _update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        h = functional.embedding(
            x, A.t(), self.padding_idx, None, self.norm_type, self.scale_grad_by_freq, self.sparse
        )
        factor = getattr(self, "embed_scale", 1.0)  # Gemma's and BART's tables multiply what they give
        return (h @ B.t()) * (method.scale * factor)

    def _composed(self, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        return super()._composed(A, B, method).t()


class _Conv(AdaptedLayer):
    """A of the layer's own kernel to r channels, B of a kernel of 1 from them."""

    def _update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        convolve = getattr(functional, f"conv{self.weight.dim() - 2}d")
        dropped = functional.dropout(x, method.dropout, self.training)
        h = self._conv_forward(dropped, A.to(x.dtype), None)
        update: Tensor = convolve(h, B.to(h.dtype)) * method.scale
        return update

    def _composed(self, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        flat = method.scale * (B.flatten(1) @ A.flatten(1))
        return flat.view(self.weight.shape)

    def along_inputs(self, factors: Tensor) -> Tensor:
        return factors.view(1, -1, *(1 for _ in self.weight.shape[2:]))

    along_outputs = along_inputs

    def _rescaling(self, factors: Tensor, weight: Tensor, *, inputs: bool) -> Tensor:
        shape = (1, -1) if inputs else (-1, 1)
        rescaled = factors.view(*shape, *(1 for _ in weight.shape[2:]))
        return super()._rescaling(rescaled, weight, inputs=inputs)


_MIXINS: dict[str, type[AdaptedLayer]] = {
    "linear": _Linear,
    "conv1d": _Conv1D,
    "embedding": _Embedding,
    "conv": _Conv,
}


_DERIVED: dict[tuple[str, type[nn.Module]], type[nn.Module]] = {}


def _derived(mixin: type[AdaptedLayer], original: type[nn.Module]) -> type[nn.Module]:
    key = mixin.__name__, original
    if key not in _DERIVED:
        members = {"original_class": original, "__reduce_ex__": _reduced}
        _DERIVED[key] = type(f"Adapted{original.__name__}", (mixin, original), members)
    return _DERIVED[key]


def _reduced(layer: AdaptedLayer, protocol: Any) -> tuple[Any, ...]:
    """How pickle and copy write an adapted layer, whose class has no name to import."""
    return _blank, (type(layer).__bases__[0], layer.original_class), layer.__dict__.copy()


def _blank(mixin: type[AdaptedLayer], original: type[nn.Module]) -> nn.Module:
    kind: Any = _derived(mixin, original)
    layer: nn.Module = kind.__new__(kind)
    return layer


def adapted_class(module: nn.Module, name: str) -> type[nn.Module]:
    """The class that a module takes while it carries adapters.

    Raises
    ------
    ValueRangeError : no layer of a kind that can be adapted, or one that is not used in the way of its kind
    """
    if isinstance(module, AdaptedLayer):
        return type(module)
    kind = kind_of(module)
    if kind is None or (wrong := _unfit(module, kind)):
        told = "is none of these" if kind is None else wrong
        raise ValueRangeError(
            f"a target must be a linear layer, an embedding or a convolution: {shown(name)} ({type(module).__name__}) "
            f"{told}; choose other targets"
        )
    return _derived(_mixin(kind, module), type(module))


def _unfit(module: nn.Module, kind: str) -> str:
    """Why a layer of a kind that can be adapted cannot be, "" where it can."""
    if type(module).__name__ == "NonDynamicallyQuantizableLinear":
        return "is read by its parent, which would pass the adapter by"
    if nn.parameter.is_lazy(getattr(module, "weight", None)):
        return "has no shape before its first input"
    if (taken := taken_name(module)) is not None:
        return f"has a {taken} of its own, as the layers of other adapters have"
    if kind == "embedding" and module.max_norm is not None:
        return "has a max_norm, by which its rows change as they are read"
    if kind == "embedding" and _is_rewritten(module) and not hasattr(module, "embed_scale"):
        return "looks up other rows than those of its input"
    return ""


def _is_rewritten(module: nn.Module) -> bool:
    """Whether its class has another forward than the layer that it derives from."""
    plain = next(c for c in reversed(type(module).__mro__) if c is not nn.Module and "forward" in vars(c))
    return type(module).forward is not vars(plain)["forward"]


def _mixin(kind: str, module: nn.Module) -> type[AdaptedLayer]:
    """A linear layer with a forward of its own keeps it, and the update is added to what it gives."""
    if kind in _OWN_FORWARD and ("forward" in vars(module) or _is_rewritten(module)):
        return _OWN_FORWARD[kind]
    return _MIXINS[kind]


class _OwnLinear(_Linear):
    at_once = False

    @torch.no_grad()
    def _require_same_output(self, weight: nn.Parameter, merged: nn.Parameter, delta_W: Tensor) -> None:
        d_in = sizes(self)[1]
        x = torch.linspace(-1, 1, 2 * d_in, device=weight.device).view(2, d_in).to(weight.dtype)
        before = self._parameters["weight"]
        outputs = []
        try:
            for value in (weight, merged):
                self._parameters["weight"] = value
                outputs.append(self.plain(x).float())
        finally:
            self._parameters["weight"] = before
        added = x.float() @ (delta_W.t() if kind_of(self) == "linear" else delta_W).float()
        off = float((outputs[1] - outputs[0] - added).norm())
        noise = 16 * torch.finfo(weight.dtype).eps * float(outputs[0].norm() + added.norm())
        if not off <= 0.01 * float(added.norm()) + noise:
            raise ValueRangeError(
                "a layer must give merged what it gives unmerged: got one whose own forward "
                f"({self.original_class.__name__}) changes what is added to its weight; leave the adapter unmerged"
            )


class _OwnConv1D(_Conv1D, _OwnLinear):
    at_once = False


_OWN_FORWARD: dict[str, type[AdaptedLayer]] = {"linear": _OwnLinear, "conv1d": _OwnConv1D}
