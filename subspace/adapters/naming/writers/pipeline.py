"""Prefixes of the names of an image model: ``diffusion_model.``, ``unet.`` and ``transformer.`` stand for one model."""

from __future__ import annotations

import re

from subspace.adapters.naming.writers._names import WriterNames

__all__ = ["NAMES"]

_PREFIX = re.compile(
    r"(?:(?:model\.)?diffusion_model|unet|transformer(?=\.(?:single_)?(?:transformer_)?blocks\.|\.double_blocks\.))"
    r"\.(?P<rest>.+)",
    re.DOTALL,
)


def _translate(module: str) -> tuple[str, ...]:
    match = _PREFIX.fullmatch(module)
    return () if match is None else (match["rest"],)


NAMES = WriterNames(
    name="pipeline",
    about="diffusers, ComfyUI, ai-toolkit (huggingface/diffusers, loaders/lora_conversion_utils.py)",
    translate=_translate,
)
