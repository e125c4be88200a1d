"""Which modules can be adapted, and the shapes that their factors have."""

from __future__ import annotations

from torch import nn

from subspace.errors import ShapeError
from subspace.training.lowrank import Rows
from subspace.training.methods import LoRA

__all__ = ["factor_shapes", "group_rows", "kind_of", "sizes"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def kind_of(module: nn.Module) -> str | None:
    """Kind of a layer that can be adapted: linear, conv1d (transformers' Conv1D), embedding, conv; else None."""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, _CONVOLUTIONS):
        return "conv"
    is_conv1d = any(c.__name__ == "Conv1D" and "transformers" in c.__module__ for c in type(module).__mro__)
    return "conv1d" if is_conv1d else None


def sizes(module: nn.Module) -> tuple[int, int]:
    """(d_out, d_in) of a layer as in ``W (d_out, d_in)``, however its weight is stored; channels of a convolution."""
    if isinstance(module, nn.Linear):  # whose weight may be packed
        return module.out_features, module.in_features
    first, second = module.weight.shape[:2]
    transposed = kind_of(module) in ("conv1d", "embedding")
    return (second, first) if transposed else (first, second)


def factor_shapes(module: nn.Module, method: LoRA) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B: (r * groups, d_in) and (rows of the groups, r), with a kernel for a convolution.

    Raises
    ------
    ShapeError : groups that do not divide the rows, a convolution of several groups, r above a dimension
    """
    d_out, d_in = sizes(module)
    if kind_of(module) == "conv":
        return _conv_shapes(module, method, d_out, d_in)
    if kind_of(module) == "embedding" and method.groups is not None:
        raise ShapeError("groups are of a fused linear layer: got an embedding; leave it out of the targets")
    rows = group_rows(module, method)
    _require_rank(method.r, rows[0][1] - rows[0][0], d_in)
    return (method.r * len(rows), d_in), (sum(stop - start for start, stop in rows), method.r)


def _conv_shapes(
    module: nn.Module, method: LoRA, d_out: int, d_in: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if method.groups is not None:
        raise ShapeError("groups are of a fused linear layer: got a convolution; leave it out of the targets")
    if module.groups != 1:
        raise ShapeError(
            f"a convolution must have one group to be adapted: got {module.groups}; leave it out of the targets"
        )
    kernel = tuple(module.weight.shape[2:])
    _require_rank(method.r, d_out, module.weight[0].numel())
    return (method.r, d_in, *kernel), (d_out, method.r, *(1 for _ in kernel))


def _require_rank(r: int, rows: int, columns: int) -> None:
    if r > min(rows, columns):
        raise ShapeError(
            f"a rank must be at most the smaller dimension of a target: got r = {r} for {rows} x {columns}; "
            "lower the rank or leave the target out"
        )


def group_rows(module: nn.Module, method: LoRA) -> Rows:
    """First and last + 1 of the rows of each adapted group.

    Raises
    ------
    ShapeError : the groups do not divide the rows
    """
    groups = method.groups or (True,)
    d_out = sizes(module)[0]
    if d_out % len(groups):
        raise ShapeError(
            f"the rows of a fused layer must divide into {len(groups)} equal groups: got {d_out} rows"
        )
    size = d_out // len(groups)
    return tuple((k * size, (k + 1) * size) for k, on in enumerate(groups) if on)
