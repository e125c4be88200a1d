"""DoRA on each kind of layer: what it adds to the output, and to the weight."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from subspace.training.layer_shapes import as_matrix, matrix_of
from subspace.training.methods import _lora_layers

if TYPE_CHECKING:
    from subspace.training.adapted_layer import AdaptedLayer
    from subspace.training.methods.dora import DoRA

__all__ = ["change", "output"]


@torch.no_grad()
def _norms(layer: AdaptedLayer, method: DoRA, A: Tensor, B: Tensor) -> Tensor:
    """Norm of ``W + delta_W`` for each output; a constant to the gradient, and in float32 under autocast too."""
    kind = A.device.type
    wide = nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)
    with wide:
        delta_W = as_matrix(layer, _lora_layers.composed(layer, method, A, B))
    norms: Tensor = (matrix_of(layer) + delta_W).norm(dim=1)
    return norms


def output(
    layer: AdaptedLayer, method: DoRA, A: Tensor, B: Tensor, m: Tensor, x: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """Return the output of a layer whose weight is ``m (W + delta_W) / ||W + delta_W||``.

    Parameters
    ----------
    layer : an adapted one
    method : scale and dropout
    A, B : the factors of ``delta_W``
    m : one magnitude for each output
    x : the input; further arguments go to the layer's own forward
    """
    factor = m / _norms(layer, method, A, B)
    bias: Tensor | None = layer._parameters.get("bias")
    if layer.layer_kind == "conv":
        shape = (-1, *(1 for _ in layer.weight.shape[2:]))
        factor, bias = factor.view(shape), None if bias is None else bias.view(shape)
    out = layer.plain(x, *args, **kwargs)
    seen = _lora_layers.dropped(layer, method, A, x)
    # with dropout what W adds to its own output is of the input that A sees, as in PEFT
    of_weight = out if seen is x else layer.plain(seen.to(x.dtype), *args, **kwargs)
    if bias is not None:
        of_weight = of_weight - bias
    update = _lora_layers.update(layer, method, A, B, seen)
    return (out + (factor - 1) * of_weight + factor * update).to(out.dtype)


def change(layer: AdaptedLayer, method: DoRA, A: Tensor, B: Tensor, m: Tensor) -> Tensor:
    """Return ``W' - W`` in the layout of the weight, in float32 at least.

    Parameters
    ----------
    layer : an adapted one
    method : scale
    A, B : the factors of ``delta_W``
    m : one magnitude for each output
    """
    delta_W = _lora_layers.composed(layer, method, A, B)
    W, turned = matrix_of(layer), as_matrix(layer, delta_W)
    whole = (m / _norms(layer, method, A, B))[:, None] * (W + turned) - W
    return (whole.t() if layer.layer_kind in ("conv1d", "embedding") else whole).reshape(delta_W.shape)
