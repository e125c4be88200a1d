"""diffusers: ``unet.<path>.lora.down.weight`` and ``text_encoder.<path>.lora_linear_layer.down.weight``.

Every version of diffusers since 0.17 loads these keys and applies them with scale 1, so the scale is multiplied into B.
"""

from __future__ import annotations

from collections.abc import Sequence

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer
from subspace.adapters.naming.components import named_component
from subspace.adapters.naming.image_models import component_of
from subspace.adapters.naming.vocabulary import MODELS
from subspace.adapters.place import place
from subspace.adapters.writer import Layout, Writer
from subspace.adapters.writers._spelling import require_dotted
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["WRITER"]

# the models of pipelines that load_lora_weights loads into
_MODELS = {
    "unet",
    "transformer",
    "transformer_ref",
    "connectors",
    "text_conditioner",
    "text_encoder",
    "text_encoder_2",
}
_BARE = (("UNet", "unet"), ("transformer", "transformer"), ("CLIP", "text_encoder"))
_IN_SEVERAL = {"proj_out", "norm_out", "conv_in", "conv_out", "x_embedder", "context_embedder", "pos_embed"}
_OF_TEXT = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")


def _lay_out(layers: Sequence[Layer], adapter: Adapter) -> Layout:
    tensors = {}
    names = {layer.module: _name(layer.module, adapter) for layer in layers}
    for layer in layers:
        name = names[layer.module]
        style = "lora_linear_layer" if name.startswith("text_encoder") else "lora"
        tensors[f"{name}.{style}.down.weight"], tensors[f"{name}.{style}.up.weight"] = layer.tensors()
    return Layout(tensors, names)


def _name(module: str, adapter: Adapter) -> str:
    """Path of a layer, behind the name that its model has in a pipeline.

    Raises
    ------
    FormatError : no pipeline loads it

    References
    ----------
    huggingface/diffusers 0.42, loaders/lora_pipeline.py: ``_lora_loadable_modules``, of every pipeline;
    loaders/lora_base.py: ``_load_lora_into_text_encoder``, for the layers of text encoders;
    utils/state_dict_utils.py: ``PEFT_TO_DIFFUSERS``, ``UNET_TO_DIFFUSERS``.
    """
    model, path = named_component(module, adapter.format, pipeline=True)
    model = (
        model or next((known for kind, known in _BARE if _is_of(kind, path)), "") or component_of(path) or ""
    )
    if adapter.format == WRITER.name:
        return f"{model}.{path}" if model else module
    require_dotted([path], adapter)
    _require_in_pipeline(model, path, module, adapter)
    if model.startswith("text_encoder") and not path.endswith(_OF_TEXT):
        raise FormatError(
            f"diffusers loads only q_proj, k_proj, v_proj, out_proj, fc1 and fc2 of a text encoder, and not "
            f"{shown(module)}, in {place(adapter.path)}; choose another format"
        )
    return f"{model}.{path}"


def _require_in_pipeline(model: str, path: str, module: str, adapter: Adapter) -> None:
    if path.startswith(("double_blocks.", "single_blocks.")) and model in {
        "",
        "transformer",
        "diffusion_model",
    }:
        raise FormatError(
            f"Flux has other layers in diffusers than {shown(module)}, in {place(adapter.path)}; choose the format "
            "kohya, which the Flux pipelines of diffusers load too"
        )
    if model not in _MODELS or (model == "unet" and not MODELS["UNet"].begins(path)):
        raise FormatError(
            f"No pipeline of diffusers has a module called {shown(module)}, in {place(adapter.path)}; choose another "
            "format, or give names such as unet.mid_block.attentions.0.proj_in with `rename`"
        )


def _is_of(kind: str, path: str) -> bool:
    """Whether a path without the name of a model is of one, by its first word."""
    return MODELS[kind].begins(path) and path.partition(".")[0] not in _IN_SEVERAL


WRITER = Writer(
    name="diffusers",
    about="diffusers, lora.down and lora.up: scale 1, with the scale multiplied into B (diffusers models/lora.py)",
    holds=lambda layer: layer.kind == "linear" or (layer.kind == "conv" and layer.kernel is not None),
    lay_out=_lay_out,
    fitted=lambda layers: [layer.folded() for layer in layers],
)
