"""Layers that carry adapters: the user's own modules, of a class derived from theirs while they are adapted.

The module stays the same object with the same parameters under the same names, so that whatever refers to it goes on to
work; ``isinstance`` and hooks too. Removing the last adapter gives it its class back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from subspace.errors import ValueRangeError, shown
from subspace.training.layers import AdaptedLayer
from subspace.training.lowrank import low_rank_linear
from subspace.training.methods import LoRA
from subspace.training.shapes import group_rows, kind_of, sizes

__all__ = ["adapted_class"]


class _Linear(AdaptedLayer):
    def _with_update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        return low_rank_linear(
            x, self.weight, self.bias, A, B, scale=method.scale, rows=group_rows(self, method)
        )

    def _update(self, x: Tensor, A: Tensor, B: Tensor, method: LoRA) -> Tensor:
        h = functional.linear(functional.dropout(x, method.dropout, self.training), A)
        rows, (d_out, _) = group_rows(self, method), sizes(self)
        if rows == ((0, d_out),):
            return functional.linear(h, B) * method.scale
        added = h.new_zeros(*h.shape[:-1], d_out)
        blocks = B.split([stop - start for start, stop in rows])
        for place, part, B_g in zip(rows, h.split(method.r, dim=-1), blocks, strict=True):
            added[..., slice(*place)] = functional.linear(part, B_g)
        return added * method.scale


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
        return convolve(h, B.to(h.dtype)) * method.scale

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
        members = {"original_class": original}
        _DERIVED[key] = type(f"Adapted{original.__name__}", (mixin, original), members)
    return _DERIVED[key]


def adapted_class(module: nn.Module, name: str) -> type[nn.Module]:
    """The class that a module takes while it carries adapters.

    Raises
    ------
    ValueRangeError : no layer of a kind that can be adapted, or one whose own forward is never called
    """
    kind = kind_of(module)
    if isinstance(module, AdaptedLayer):
        return type(module)
    if kind is None or type(module).__name__ == "NonDynamicallyQuantizableLinear":
        reads = "is read by its parent, which would pass the adapter by" if kind else "is none of these"
        raise ValueRangeError(
            f"a target must be a linear layer, an embedding or a convolution: {shown(name)} ({type(module).__name__}) "
            f"{reads}; choose other targets"
        )
    return _derived(_mixin(kind, module), type(module))


def _mixin(kind: str, module: nn.Module) -> type[AdaptedLayer]:
    """A linear layer with a forward of its own keeps it, and the update is added to what it gives."""
    plain: Callable[..., Any] = nn.Linear.forward
    if kind == "linear" and type(module).forward is not plain:
        return _OwnForward
    return _MIXINS[kind]


class _OwnForward(_Linear):
    _with_update = AdaptedLayer._with_update
