"""microsoft/LoRA's loralib: ``<module>.lora_A`` and ``.lora_B`` in a torch file, for ``load_state_dict(strict=False)``.

The file has no place for a scale: who loads it builds the layers with ``lora_alpha``. One scale of all modules stays
out of the file; several are multiplied into B, which leaves 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer
from subspace.adapters.writer import Layout, Writer
from subspace.checkpoints.tensor_bytes import StoredTensor

__all__ = ["WRITER"]


def _holds(layer: Layer) -> bool:
    """Linear, embedding, and a pointwise convolution: the factors of others are of a matrix folded otherwise.

    References
    ----------
    loralib/layers.py 0.1.2: ``ConvLoRA``, whose A is (r * k, in * k), and ``Embedding``.
    """
    return layer.kind != "conv" or (layer.kernel is not None and math.prod(layer.kernel[1:]) == 1)


def _fitted(layers: Sequence[Layer]) -> list[Layer]:
    one = len({layer.scale for layer in layers}) == 1
    return list(layers) if one else [layer.folded() for layer in layers]


def _lay_out(layers: Sequence[Layer], adapter: Adapter) -> Layout:
    tensors = {}
    for layer in layers:
        prefix = f"{layer.module}." if layer.module else ""
        for part, (raw, dtype), M in zip("AB", layer.tensors(), (layer.A, layer.B), strict=True):
            tensors[f"{prefix}lora_{part}"] = StoredTensor(raw.reshape(M.shape), dtype)
    return Layout(tensors, {layer.module: layer.module for layer in layers}, notes=_notes(layers))


def _notes(layers: Sequence[Layer]) -> tuple[str, ...]:
    scale, told = layers[0].scale, []
    if scale is None:
        told.append("the scale is unknown, and loralib files do not hold one: nothing was multiplied into B")
    elif scale != 1:
        alphas = sorted({f"{scale * layer.r:.12g}" for layer in layers}, key=float)
        told.append(
            f"loralib files hold no scale: build the layers with lora_alpha = {scale:.12g} * r "
            f"({', '.join(alphas[:4])}), read the file with --scale {scale!r}"
        )
    else:
        told.append(
            "the scale is 1 (in B): build the layers with lora_alpha = r, read the file with --scale 1"
        )
    others = sorted({layer.kind for layer in layers} - {"linear"})
    if others:
        told.append(f"loralib files do not say which layer is of which kind: got {', '.join(others)}")
    return tuple(told)


WRITER = Writer(
    name="loralib",
    about="microsoft/LoRA: no scale in the file (loralib/utils.py, lora_state_dict)",
    holds=_holds,
    lay_out=_lay_out,
    fitted=_fitted,
    stacked=True,
    torch=True,
)
