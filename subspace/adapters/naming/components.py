"""The model of a pipeline that a module is in: ``unet.mid_block.attentions.0.proj_in`` is in ``unet``."""

from __future__ import annotations

import re

from subspace.adapters.adapter import JOINED
from subspace.adapters.naming.vocabulary import MODELS

__all__ = ["IMAGE_FORMATS", "named_component"]

# formats whose files may hold modules of several models of a pipeline, behind the names of these
IMAGE_FORMATS = frozenset({"cloneofsimo", "diffusers", "kohya", "lycoris", "pipeline", "xlabs"})
# formats of files that anyone may have written, in which names of diffusers mean what they mean there
_ANYONES = frozenset({"by_marker", "dense", "loralib", "pair"})
_ALWAYS = re.compile(r"(?P<model>unet|text_encoder(?:_[23])?|(?:model\.)?diffusion_model)\.", re.DOTALL)
_IN_IMAGES = re.compile(
    # in GPT-2 "transformer" is a module
    r"(?P<model>transformer(?!\.(?:h|wte|wpe)\b)(?:_2|_ref)?|prior|controlnet|connectors|text_conditioner)\.",
    re.DOTALL,
)
_BLOCKS = re.compile(r"(?:single_)?transformer_blocks\.|blocks\.[0-9]+\.(?:attn[12]|ffn)\.")  # Wan has blocks


def named_component(module: str, source_format: str, *, pipeline: bool = False) -> tuple[str, str]:
    """The name of the model that a module begins with, "" where it has none, and the path in that model.

    Parameters
    ----------
    source_format : of the file; a file of PEFT is of one model, in which these words are names of modules
    pipeline : whether the module is to go into a pipeline, so that the words mean what they mean there

    Examples
    --------
    >>> named_component("text_encoder.text_model.encoder.layers.0.mlp.fc1", "pipeline")
    ('text_encoder', 'text_model.encoder.layers.0.mlp.fc1')
    >>> named_component("transformer.h.0.attn.c_attn", "loralib")
    ('', 'transformer.h.0.attn.c_attn')
    """
    formats = source_format.split(JOINED)
    image = not IMAGE_FORMATS.isdisjoint(formats)
    if not image and not pipeline and _ANYONES.isdisjoint(formats):
        return "", module
    match = _ALWAYS.match(module) or _IN_IMAGES.match(module)
    if match is None:
        return "", module
    model, path = match["model"].removeprefix("model."), module[match.end() :]
    return (model, path) if image or _is_of(model, path) else ("", module)


def _is_of(model: str, path: str) -> bool:
    """Whether a path is one of diffusers' own, so that the word before it is the name of a model."""
    if model == "unet":
        return MODELS["UNet"].begins(path)
    if model == "transformer":
        return _BLOCKS.match(path) is not None
    return model == "diffusion_model" or (model.startswith("text_encoder") and path.startswith("text_model."))
