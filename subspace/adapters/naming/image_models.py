"""Names of image and video models: which component of a pipeline they begin with, and words that no other model has.

A pipeline's file names the component first (``unet.``, ``transformer_2.``, ``diffusion_model.`` of ComfyUI), or begins
with the names of its one model. The word ``transformer`` alone says nothing, as GPT-2, BLOOM and MPT begin with it too;
there the words of diffusers and of Black Forest Labs for blocks and projections decide.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = [
    "are_other_components",
    "component_of",
    "is_denoiser",
    "is_of_image_model",
    "is_undecided",
    "split_component",
]

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
_UNET = re.compile(r"(?:down_blocks|mid_block|up_blocks)\.")
_ANY_DENOISER = {"diffusion_model", "dit"}
_DENOISERS = {"unet", *_ANY_DENOISER}
# what language models have behind ``transformer``: GPT-2 and BLOOM, ChatGLM, XLNet
_LANGUAGE = re.compile(r"transformer\.(?:h|wte|wpe|word_embeddings|encoder|layer|output_layer)(?:\.|$)")


@lru_cache(maxsize=64)  # every table of names asks for it, one name after the other
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


def is_denoiser(component: str | None) -> bool:
    """Whether a component denoises: what people adapt, under a name for each library and each of two experts.

    Examples
    --------
    >>> is_denoiser("diffusion_model"), is_denoiser("transformer_2"), is_denoiser("text_encoder")
    (True, True, False)
    """
    return component in _DENOISERS or (component is not None and component.startswith("transformer"))


def are_other_components(first: str, second: str) -> bool:
    """Whether two names are of different components; a name that does not say which it is of may be of any.

    ``diffusion_model`` of ComfyUI is the one denoiser of its file, so it may be any of diffusers'.

    Examples
    --------
    >>> are_other_components("transformer.blocks.0.attn1.to_q", "transformer_2.blocks.0.attn1.to_q")
    True
    >>> are_other_components("diffusion_model.blocks.0.self_attn.q", "transformer_2.blocks.0.attn1.to_q")
    False
    """
    one, other = split_component(first)[0], split_component(second)[0]
    if one is None or other is None or one == other:
        return False
    if not (is_denoiser(one) and is_denoiser(other)):
        return True
    return not {one, other} & _ANY_DENOISER and {one, other} != {"unet", "transformer"}


def is_of_image_model(name: str) -> bool:
    """Whether a module is one of an image pipeline, from its component or from words of its path.

    Examples
    --------
    >>> is_of_image_model("transformer.layers.0.attention.to_q"), is_of_image_model("transformer.layers.0.attention.q")
    (True, False)
    """
    return _COMPONENT.fullmatch(name) is not None or _WORDS.search(name) is not None


def component_of(name: str) -> str | None:
    """The component of diffusers that a name without one is of, by the words of its path; None where they do not say.

    Examples
    --------
    >>> component_of("mid_block.attentions.0.proj_in"), component_of("layers.0.attention.to_q"), component_of("h.0.q")
    ('unet', 'transformer', None)
    """
    component, _ = split_component(name)
    if component is not None:
        return component
    if _UNET.match(name):
        return "unet"
    return (
        "text_encoder" if name.startswith("text_model.") else "transformer" if _WORDS.search(name) else None
    )


def is_undecided(name: str) -> bool:
    """Whether a module may be of an image pipeline or of a language model: its path begins with ``transformer``."""
    return name.startswith("transformer.") and not is_of_image_model(name) and not _LANGUAGE.match(name)
