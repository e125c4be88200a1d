"""The factors of an adapted layer in the shapes that loralib's layers have, for layers that it has."""

from __future__ import annotations

import torch
from torch import Tensor

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["loralib_factors"]


def loralib_factors(layer: AdaptedLayer, name: str) -> dict[str, Tensor]:
    """Return ``lora_A`` and ``lora_B`` of the active adapter as loralib's layer of the same kind holds them.

    Parameters
    ----------
    layer : adapted
    name : of the module, for errors

    Raises
    ------
    ValueRangeError : groups of a fused layer that are no equal blocks, a convolution that loralib has no layer for

    Notes
    -----
    loralib reads ``B A`` (out * k, in * k) of a kernel of k x k as the weight (out, in, k, k), so that row (o, c) holds
    the c-th of k parts of filter o. With A (r, in, k, k) and B (out, r) here, its A has those parts of each of our rows
    as rows of its own, and its B is ``B (x) I_k``: the update is the same.

    References
    ----------
    loralib/layers.py 0.1.2: ``MergedLinear``, ``ConvLoRA``.
    """
    method = layer.methods[layer.active or ""]
    factors = {part: value.detach() for part, value in layer.factors(layer.active or "").items()}
    if any(isinstance(group, str) for group in getattr(method, "groups", None) or ()):
        raise ValueRangeError(
            f"loralib's format holds groups as equal blocks of rows, and those of {shown(name)} are of unequal size or "
            "interleaved; give `format` peft"
        )
    if layer.layer_kind == "conv":
        return _of_convolution(factors["lora_A"], factors["lora_B"], name)
    return factors


def _of_convolution(A: Tensor, B: Tensor, name: str) -> dict[str, Tensor]:
    kernel = tuple(A.shape[2:])
    k = kernel[0]
    if set(kernel) != {k} or (len(kernel) != 2 and k > 1):
        size = " x ".join(map(str, kernel))
        raise ValueRangeError(
            f"loralib has no layer for the convolution {shown(name)}: its kernel is {size}, and loralib's ConvLoRA "
            "computes only square kernels of two dimensions; give `format` peft"
        )
    r, d_in = A.shape[:2]
    parts = A.reshape(r * k, d_in * A[0, 0].numel() // k)
    return {"lora_A": parts, "lora_B": torch.kron(B.flatten(1), torch.eye(k, dtype=B.dtype, device=B.device))}
