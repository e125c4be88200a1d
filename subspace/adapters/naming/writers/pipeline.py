"""Prefixes of the names of an image model: ``diffusion_model.``, ``unet.`` and ``transformer.`` stand for one model."""

from __future__ import annotations

from subspace.adapters.naming.image_models import is_denoiser, split_component
from subspace.adapters.naming.writers._names import WriterNames

__all__ = ["NAMES"]


def _translate(module: str) -> tuple[str, ...]:
    """The name without the component.

    Examples
    --------
    >>> _translate("transformer.blocks.0.attn1.to_q"), _translate("text_encoder_2.encoder.layers.0.fc1")
    (('blocks.0.attn1.to_q',), ())
    """
    component, rest = split_component(module)
    return (rest,) if is_denoiser(component) else ()


NAMES = WriterNames(
    name="pipeline",
    about="diffusers, ComfyUI, ai-toolkit (huggingface/diffusers, loaders/lora_conversion_utils.py)",
    translate=_translate,
)
