"""Names of image and video models: which component of a pipeline they begin with, and words that no other model has.

A pipeline's file names the component first (``unet.``, ``transformer_2.``, ``diffusion_model.`` of ComfyUI), or begins
with the names of its one model. The word ``transformer`` alone says nothing, as GPT-2, BLOOM and MPT begin with it too;
there the words of diffusers and of Black Forest Labs for blocks and projections decide.
"""

from __future__ import annotations

import re

__all__ = ["is_of_image_model", "is_undecided", "split_component"]

# huggingface/diffusers 0.42.1, loaders/lora_pipeline.py: _lora_loadable_modules; ComfyUI and DiffSynth-Studio
_COMPONENT = re.compile(
    r"(?:(?:model|pipe)\.)?(?P<component>diffusion_model|unet|dit|prior|controlnet|vae|connectors|text_conditioner"
    r"|text_encoder(?:_[0-9]+)?|transformer_(?:[0-9]+|ref))\.(?P<rest>.+)",
    re.DOTALL,
)
_WORDS = re.compile(
    r"(?:^|\.)(?:"
    # blocks: UNets and transformers of diffusers, Flux, Hunyuan, SD3, HiDream, Z-Image
    r"(?:down|up)_blocks|mid_block|(?:single_|joint_|double_)?transformer_blocks|(?:double|single)(?:_stream)?_blocks"
    r"|joint_blocks|(?:noise|context)_refiner"
    # projections and modulation
    r"|to_[qkv]|to_out|to_add_out|add_[qkv]_proj|attn[12]|(?:img|txt)_(?:attn|mlp|mod)|adaLN_modulation|ffn?\.net"
    # embeddings
    r"|time_text_embed|condition_embedder|caption_projection|(?:x|context)_embedder"
    r")(?:\.|$)"
)
# what language models have behind ``transformer``: GPT-2 and BLOOM, ChatGLM, XLNet
_LANGUAGE = re.compile(r"transformer\.(?:h|wte|wpe|word_embeddings|encoder|layer|output_layer)\.")


def split_component(name: str) -> tuple[str | None, str]:
    """The component of a pipeline that a name begins with, None where it names none, and the rest.

    Examples
    --------
    >>> split_component("model.diffusion_model.blocks.0.ffn.0")
    ('diffusion_model', 'blocks.0.ffn.0')
    >>> split_component("transformer.blocks.0.attn1.to_q"), split_component("transformer.h.0.attn.c_attn")
    (('transformer', 'blocks.0.attn1.to_q'), (None, 'transformer.h.0.attn.c_attn'))
    """
    match = _COMPONENT.fullmatch(name)
    if match is not None:
        return match["component"], match["rest"]
    first, _, rest = name.partition(".")
    return (first, rest) if first == "transformer" and _WORDS.search(rest) else (None, name)


def is_of_image_model(name: str) -> bool:
    """Whether a module is one of an image pipeline, from its component or from words of its path.

    Examples
    --------
    >>> is_of_image_model("transformer.layers.0.attention.to_q"), is_of_image_model("transformer.layers.0.attention.q")
    (True, False)
    """
    return _COMPONENT.fullmatch(name) is not None or _WORDS.search(name) is not None


def is_undecided(name: str) -> bool:
    """Whether a module may be of an image pipeline or of a language model: its path begins with ``transformer``."""
    return name.startswith("transformer.") and not is_of_image_model(name) and not _LANGUAGE.match(name)
