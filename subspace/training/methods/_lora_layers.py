"""LoRA's A and B on each kind of layer: their shapes and start, the update in the output and in the weight.

W (d_out, d_in) of a fused layer has groups of rows, each with an A and a B of its own: A (r * groups, d_in) holds every
group's A one under another, and so does B (rows of the groups, r). The rows of a group may be several ranges. A
convolution has A of its own kernel to r channels, and B of a kernel of 1 from them. An embedding W (num_embeddings, d)
has ``delta_W = scale * (B A)^T`` with A (r, num_embeddings), B (d, r).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.errors import ShapeError, ValueRangeError
from subspace.training.layer_shapes import kind_of, matrix_of, sizes, weight_of
from subspace.training.lowrank import Rows, low_rank_linear
from subspace.training.methods._group_rows import count, group_rows, in_blocks, index
from subspace.training.seeds import start_seed
from subspace.training.start import Factors, Start

if TYPE_CHECKING:
    from subspace.training.adapted_layer import AdaptedLayer
    from subspace.training.methods._low_rank import LowRank

__all__ = [
    "composed",
    "dropped",
    "less_start",
    "output",
    "require_same_output",
    "start",
    "update",
]


@torch.no_grad()
def start(layer: nn.Module, module: str, method: LowRank, how: Start) -> tuple[Tensor, Tensor]:
    """Return A and B at the start, in float32 at least, on the layer's device.

    Parameters
    ----------
    layer : of a kind that can be adapted
    module : its name, on which the random numbers depend
    method : rank, scale, seed and groups
    how : what they begin with

    Raises
    ------
    ShapeError : a convolution of several groups, r above a dimension
    ValueRangeError : a rank or a weight that the start cannot be made with
    """
    # the same start whatever default type and device the caller has set
    A, B = (torch.zeros(shape, dtype=torch.float32, device="cpu") for shape in _shapes(layer, method))
    generator = torch.Generator("cpu").manual_seed(start_seed(method.seed, module, method.r))
    places = group_rows(layer, method)

    def weights() -> list[Tensor]:
        W = matrix_of(layer)
        return [W[index(place, W.device)] for place in places]

    kind, rows = kind_of(layer) or "", list(map(count, places))
    how.fill(Factors(kind, A, B, method.r, method.scale, generator, rows, weights))
    weight = weight_of(layer)
    wide = torch.promote_types(weight.dtype, torch.float32) if weight.is_floating_point() else torch.float32
    return A.to(weight.device, wide), B.to(weight.device, wide)


def less_start(A: Tensor, B: Tensor, A_0: Tensor, B_0: Tensor) -> dict[str, Tensor]:
    """Return the factors of ``B A - B_0 A_0``, of twice the rank: [A - A_0; A_0] and [B, B - B_0].

    Parameters
    ----------
    A, A_0 : (r * groups, d_in), or of a convolution
    B, B_0 : (rows of the groups, r), or of a convolution

    Notes
    -----
    PEFT's conversion, ``subtract_mutated_init``, has [A; A_0] and [B, -B_0], whose product is the same. There a change
    that is small next to A_0 is lost when the factors are rounded to bfloat16; here the difference itself is rounded.
    """
    r = B.shape[1]
    of_groups = [pair for parts in zip((A - A_0).split(r), A_0.split(r), strict=True) for pair in parts]
    return {"lora_A": torch.cat(of_groups), "lora_B": torch.cat([B, B - B_0], dim=1)}


def _shapes(layer: nn.Module, method: LowRank) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B."""
    d_out, d_in = sizes(layer)
    if kind_of(layer) == "conv":
        return _conv_shapes(layer, method, d_out, d_in)
    counts = [count(ranges) for ranges in group_rows(layer, method)]
    _require_rank(method.r, min(counts), d_in)
    return (method.r * len(counts), d_in), (sum(counts), method.r)


def _conv_shapes(
    layer: nn.Module, method: LowRank, d_out: int, d_in: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if layer.groups != 1:
        raise ShapeError(
            f"A grouped convolution cannot be adapted: this one has {layer.groups} groups; leave it out of the targets"
        )
    weight = weight_of(layer)
    kernel = tuple(weight.shape[2:])
    _require_rank(method.r, d_out, weight[0].numel())
    return (method.r, d_in, *kernel), (d_out, method.r, *(1 for _ in kernel))


def _require_rank(r: int, rows: int, columns: int) -> None:
    if r > min(rows, columns):
        raise ShapeError(
            f"Rank {r} is too large for a target of {rows} x {columns}: a rank is at most the smaller dimension; lower "
            "`r`, or leave the target out"
        )


def output(
    layer: AdaptedLayer, method: LowRank, A: Tensor, B: Tensor, x: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """Return the output of a layer with its update.

    Parameters
    ----------
    layer : an adapted one
    method : scale, dropout and groups
    A, B : the factors
    x : the input; further arguments go to the layer's own forward
    """
    dropout = method.dropout if layer.training else 0.0
    plain_linear = layer.layer_kind in ("linear", "conv1d") and not layer.own_forward
    if plain_linear and not dropout:
        W = layer.weight.t() if layer.layer_kind == "conv1d" else layer.weight
        B, rows = in_blocks(layer, method, B)
        return low_rank_linear(x, W, layer.bias, A, B, scale=method.scale, rows=rows)
    out = layer.plain(x, *args, **kwargs)
    return out + update(layer, method, A, B, dropped(layer, method, A, x)).to(out.dtype)


def dropped(layer: AdaptedLayer, method: LowRank, A: Tensor, x: Tensor) -> Tensor:
    """Return what A sees of an input: in training with dropout, which an embedding's indices cannot have.

    Parameters
    ----------
    layer : an adapted one
    method : for the probability
    A : the factor
    x : the input
    """
    if layer.layer_kind == "embedding" or not (method.dropout and layer.training):
        return x
    x = x if layer.layer_kind == "conv" else _as_factor(x, A)
    return functional.dropout(x, method.dropout)


def update(layer: AdaptedLayer, method: LowRank, A: Tensor, B: Tensor, x: Tensor) -> Tensor:
    """Return what an update adds to the output.

    Parameters
    ----------
    layer : an adapted one
    method : scale and groups
    A, B : the factors
    x : the input, as `dropped` gives it
    """
    return _UPDATES[layer.layer_kind](layer, method, A, B, x)


def _linear_update(layer: AdaptedLayer, method: LowRank, A: Tensor, B: Tensor, x: Tensor) -> Tensor:
    h = functional.linear(_as_factor(x, A), A)
    (B, rows), (d_out, _) = in_blocks(layer, method, B), sizes(layer)
    if rows == ((0, d_out),):
        return functional.linear(h, B) * method.scale
    added = h.new_zeros(*h.shape[:-1], d_out)
    for place, part, B_g in zip(rows, h.split(B.shape[1], dim=-1), _blocks(B, rows), strict=True):
        added[..., slice(*place)] = functional.linear(part, B_g)
    return added * method.scale


def _as_factor(x: Tensor, A: Tensor) -> Tensor:
    """An input in the type of a factor; autocast sees to that itself."""
    kind = x.device.type
    return x if kind != "meta" and torch.is_autocast_enabled(kind) else x.to(A.dtype)


def _embedding_update(layer: Any, method: LowRank, A: Tensor, B: Tensor, x: Tensor) -> Tensor:
    # dense also where the table's gradient would be sparse: torch cannot turn that of A around
    h = functional.embedding(x, A.t(), layer.padding_idx, None, layer.norm_type, layer.scale_grad_by_freq)
    factor = getattr(layer, "embed_scale", 1.0)  # Gemma's and BART's tables multiply what they give
    update: Tensor = (h @ B.t()) * (method.scale * factor)
    return update


def _conv_update(layer: Any, method: LowRank, A: Tensor, B: Tensor, x: Tensor) -> Tensor:
    convolve = getattr(functional, f"conv{layer.weight.dim() - 2}d")
    h = layer._conv_forward(x, A.to(x.dtype), None)
    update: Tensor = convolve(h, B.to(h.dtype)) * method.scale
    return update


_UPDATES = {
    "linear": _linear_update,
    "conv1d": _linear_update,
    "embedding": _embedding_update,
    "conv": _conv_update,
}


def _blocks(B: Tensor, rows: Rows) -> tuple[Tensor, ...]:
    """The B of each group whose rows are one range."""
    blocks: tuple[Tensor, ...] = B.split([stop - start for start, stop in rows])
    return blocks


def composed(layer: AdaptedLayer, method: LowRank, A: Tensor, B: Tensor) -> Tensor:
    """Return ``scale * B A`` in the layout of the weight, in float32 at least.

    Parameters
    ----------
    layer : an adapted one
    method : scale and groups
    A, B : the factors
    """
    A, B = (factor.to(torch.promote_types(factor.dtype, torch.float32)) for factor in (A, B))
    if layer.layer_kind == "conv":
        return (method.scale * (B.flatten(1) @ A.flatten(1))).view(layer.weight.shape)
    delta_W, rows = A.new_zeros(sizes(layer)), group_rows(layer, method)
    blocks = B.split([count(ranges) for ranges in rows])
    for ranges, A_g, B_g in zip(rows, A.split(B.shape[1]), blocks, strict=True):
        delta_W[index(ranges, A.device)] = method.scale * (B_g @ A_g)
    return delta_W if layer.layer_kind == "linear" else delta_W.t()


@torch.no_grad()
def require_same_output(layer: AdaptedLayer, merged: nn.Parameter, delta_W: Tensor) -> None:
    """Refuse a linear layer whose own forward changes what is added to its weight.

    Parameters
    ----------
    layer : unmerged
    merged : its weight with the update
    delta_W : the update, in the layout of the weight

    Raises
    ------
    ValueRangeError : it does
    """
    weight, d_in = layer.weight, sizes(layer)[1]
    x = torch.linspace(-1, 1, 2 * d_in, device=weight.device).view(2, d_in).to(weight.dtype)
    outputs = []
    try:
        for value in (weight, merged):
            layer._parameters["weight"] = value
            outputs.append(layer.plain(x).float())
    finally:
        layer._parameters["weight"] = weight
    added = x.float() @ (delta_W.t() if layer.layer_kind == "linear" else delta_W).float()
    off = float((outputs[1] - outputs[0] - added).norm())
    noise = 16 * torch.finfo(weight.dtype).eps * float(outputs[0].norm() + added.norm())
    if not off <= 0.01 * float(added.norm()) + noise:
        raise ValueRangeError(
            f"This layer cannot be merged: its own forward ({layer.original_class.__name__}) changes what is added to "
            "its weight; leave the adapter unmerged"
        )
