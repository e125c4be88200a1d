"""Which modules can be adapted, and the dimensions that they have."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from subspace.errors import ValueRangeError

__all__ = ["as_matrix", "kind_of", "matrix_of", "sizes", "weight_of"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def kind_of(module: nn.Module) -> str | None:
    """Return the kind of a layer: "linear", "conv1d" (transformers' Conv1D), "embedding", "conv"; None for others."""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, _CONVOLUTIONS):
        return "conv"
    is_conv1d = any(c.__name__ == "Conv1D" and "transformers" in c.__module__ for c in type(module).__mro__)
    return "conv1d" if is_conv1d else None


def sizes(module: nn.Module) -> tuple[int, int]:
    """Return (d_out, d_in) of a layer, however its weight is stored; of a convolution its channels."""
    if isinstance(module, nn.Linear):  # whose weight may be packed
        return module.out_features, module.in_features
    first, second = weight_of(module).shape[:2]
    transposed = kind_of(module) in ("conv1d", "embedding")
    return (second, first) if transposed else (first, second)


def weight_of(module: nn.Module) -> Tensor:
    """Return the weight of a layer, which torch types as anything that a module may hold."""
    return cast("Tensor", module.weight)


def as_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """Return a weight of a layer, or a change of it, as (d_out, d_in), of a convolution as (d_out, d_in * kernel)."""
    return weight.t() if kind_of(module) in ("conv1d", "embedding") else weight.flatten(1)


def matrix_of(module: nn.Module) -> Tensor:
    """Return the weight of a layer without its adapters as `as_matrix` has it, in float32 at least.

    Raises
    ------
    ValueRangeError : the layer does not hold its weight as numbers
    """
    weight = cast("Tensor", getattr(module, "base_weight", module.weight)).detach()
    if not weight.is_floating_point():
        raise ValueRangeError(
            f"The numbers of this layer's weight are needed, and it is of type {weight.dtype}; choose other targets"
        )
    return as_matrix(module, weight.to(torch.promote_types(weight.dtype, torch.float32)))
