"""microsoft/LoRA's loralib: ``<module>.lora_A`` and ``.lora_B`` in a torch file, for ``load_state_dict(strict=False)``.

The file cannot hold a scale: the layers that load it are built with ``lora_alpha``. A scale that all modules share is
left out of the file; different ones are multiplied into B, which leaves 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer
from subspace.adapters.writer import Layout, Writer
from subspace.adapters.writers._spelling import path_in_one_model
from subspace.checkpoints.tensor_bytes import StoredTensor
from subspace.text import listed

__all__ = ["WRITER"]


def _holds(layer: Layer) -> bool:
    """Whether loralib has the layer: linear, embedding, pointwise convolution; it flattens others in another way.

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
    names = path_in_one_model((layer.module for layer in layers), adapter, WRITER.name)
    for layer in layers:
        prefix = f"{names[layer.module]}." if layer.module else ""
        for part, (raw, dtype), M in zip("AB", layer.tensors(), (layer.A, layer.B), strict=True):
            tensors[f"{prefix}lora_{part}"] = StoredTensor(raw.reshape(M.shape), dtype)
    return Layout(tensors, names, notes=_notes(layers))


def _notes(layers: Sequence[Layer]) -> tuple[str, ...]:
    scale, notes = layers[0].scale, []
    if scale is None:
        notes.append("The scale is unknown and files of loralib hold none, so nothing was multiplied into B")
    elif scale != 1:
        alphas = sorted({f"{scale * layer.r:.12g}" for layer in layers}, key=float)
        notes.append(
            f"Files of loralib hold no scale; build the layers with lora_alpha = {scale:.12g} * r "
            f"({listed(alphas, most=4)}), and read the file with a `scale` of {scale!r}"
        )
    else:
        notes.append(
            "The scale is multiplied into B; build the layers with lora_alpha = r, and read the file with a `scale` "
            "of 1"
        )
    unclear = [layer.module for layer in layers if layer.A.shape[1] == layer.B.shape[0] <= layer.r]
    if unclear:
        notes.append(
            f"The shapes of {listed(unclear)} do not say how they are stored; read them with a `layout` of BA"
        )
    others = sorted({layer.kind for layer in layers} - {"linear"})
    if others:
        notes.append(
            f"Files of loralib do not say the kind of a layer, and this one holds others than linear: {listed(others)}"
        )
    return tuple(notes)


WRITER = Writer(
    name="loralib",
    about="microsoft/LoRA: the file cannot hold a scale (loralib/utils.py, lora_state_dict)",
    holds=_holds,
    lay_out=_lay_out,
    fitted=_fitted,
    stacked=True,
    torch=True,
)
