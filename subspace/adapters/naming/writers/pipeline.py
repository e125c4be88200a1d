"""Prefixes of the names of an image model: ``diffusion_model.``, ``unet.`` and ``transformer.`` stand for one model."""

from __future__ import annotations

from subspace.adapters.naming.image_models import split_component
from subspace.adapters.naming.writers._names import WriterNames

__all__ = ["NAMES"]

# what denoises; transformer_2 of Wan 2.2, a ControlNet and text encoders are models of their own
_DENOISER = ("diffusion_model", "unet", "dit", "transformer")


def _translate(module: str) -> tuple[str, ...]:
    """The name without the component.

    Examples
    --------
    >>> _translate("transformer.blocks.0.attn1.to_q"), _translate("transformer_2.blocks.0.attn1.to_q")
    (('blocks.0.attn1.to_q',), ())
    """
    component, rest = split_component(module)
    return (rest,) if component in _DENOISER else ()


NAMES = WriterNames(
    name="pipeline",
    about="diffusers, ComfyUI, ai-toolkit (huggingface/diffusers, loaders/lora_conversion_utils.py)",
    translate=_translate,
)
