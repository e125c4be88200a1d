"""diffusers: ``unet.<path>.lora.down.weight`` and ``text_encoder.<path>.lora_linear_layer.down.weight``.

Every version of diffusers since 0.17 loads these keys and applies them with scale 1, so the scale is multiplied into B.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer
from subspace.adapters.naming.image_models import component_of, split_component
from subspace.adapters.writer import Layout, Writer
from subspace.text import listed

__all__ = ["WRITER"]

# huggingface/diffusers 0.42.1, loaders/lora_pipeline.py: _lora_loadable_modules
_MODELS = re.compile(
    r"(?:unet|transformer(?:_2|_ref)?|prior|controlnet|text_encoder(?:_[23])?|connectors|text_conditioner)\.",
    re.DOTALL,
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
    component = component_of(module)
    named = component is None or split_component(module)[0] is not None
    return module if named else f"{component}.{module}"


WRITER = Writer(
    name="diffusers",
    about="diffusers, lora.down and lora.up: scale 1, with the scale multiplied into B (diffusers models/lora.py)",
    holds=lambda layer: layer.kind == "linear" or (layer.kind == "conv" and layer.kernel is not None),
    lay_out=_lay_out,
    fitted=lambda layers: [layer.folded() for layer in layers],
)
