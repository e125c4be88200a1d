"""diffusers: ``unet.<path>.lora.down.weight`` and ``text_encoder.<path>.lora_linear_layer.down.weight``.

Every version of diffusers since 0.17 loads these keys and applies them with scale 1, so the scale is multiplied into B.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer
from subspace.adapters.writer import Layout, Writer
from subspace.text import listed

__all__ = ["WRITER"]

_MODELS = re.compile(r"(?:unet|transformer|prior|controlnet|text_encoder(?:_[23])?)\.", re.DOTALL)
_BARE = (
    (re.compile(r"(?:down_blocks|mid_block|up_blocks)\."), "unet."),
    (re.compile(r"text_model\."), "text_encoder."),
    (re.compile(r"(?:single_)?transformer_blocks\."), "transformer."),
)


def _lay_out(layers: Sequence[Layer], adapter: Adapter) -> Layout:
    tensors = {}
    names = {layer.module: _name(layer.module) for layer in layers}
    for layer in layers:
        name = names[layer.module]
        style = "lora_linear_layer" if name.startswith("text_encoder") else "lora"
        tensors[f"{name}.{style}.down.weight"], tensors[f"{name}.{style}.up.weight"] = layer.tensors()
    others = [name for name in names.values() if not _MODELS.match(name)]
    notes = []
    if others:
        notes.append(
            f"No model that diffusers loads (unet, transformer, text_encoder) has the modules {listed(others)}"
        )
    return Layout(tensors, names, notes=tuple(notes))


def _name(module: str) -> str:
    """Path of a layer, behind the name that its model has in a pipeline.

    References
    ----------
    huggingface/diffusers, src/diffusers/utils/state_dict_utils.py: ``PEFT_TO_DIFFUSERS``, ``UNET_TO_DIFFUSERS``;
    loaders/lora_pipeline.py: ``unet_name``, ``transformer_name``, ``text_encoder_name``.
    """
    return next((prefix + module for start, prefix in _BARE if start.match(module)), module)


WRITER = Writer(
    name="diffusers",
    about="diffusers, lora.down and lora.up: scale 1, with the scale multiplied into B (diffusers models/lora.py)",
    holds=lambda layer: layer.kind == "linear" or (layer.kind == "conv" and layer.kernel is not None),
    lay_out=_lay_out,
    fitted=lambda layers: [layer.folded() for layer in layers],
)
