"""Keys that two writers share, and what tells them apart: both formats ask here, so that exactly one claims a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from subspace.adapters.format import Source

__all__ = [
    "is_gguf",
    "is_litgpt",
    "is_lycoris",
    "is_minlora",
    "is_mlx_vlm",
    "is_peft_lycoris",
    "is_pipeline",
    "is_xlabs",
]

# of LitGPT's blocks: its names for the fused attention and the two halves of a gated MLP
_LITGPT = re.compile(r"(?:.*\.)?h\.\d+\.(?:attn\.(?:attn|qkv)|mlp\.fc_[12])\.lora_[AB]", re.DOTALL)
_MINLORA = re.compile(r".*\.?parametrizations\.[^.]+\.\d+\.lora_[AB]", re.DOTALL)
_GGUF = re.compile(r".+\.weight\.lora_[ab]", re.DOTALL)
_XLABS = re.compile(
    r"(?:.*\.)?(?:double|single)_blocks\.\d+\.processor\.(?:qkv|proj)_lora[12]?\.(?:down|up)\.weight",
    re.DOTALL,
)
_PIPELINE = re.compile(
    r"(?:(?:diffusion_model|unet|text_encoder(?:_[23])?)\..+"
    r"|(?:transformer\.)?(?:double_blocks|single_blocks|transformer_blocks|single_transformer_blocks)\.\d+\..+)"
    r"\.lora_[AB]\.weight",
    re.DOTALL,
)
# LyCORIS has the bare name of the parameter, PEFT its prefix or the adapter's name around it
_LYCORIS = re.compile(r"(?:.+\.)?(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))", re.DOTALL)
_PEFT_LYCORIS = re.compile(
    r"(?:.+\.)?(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))\.[^.]+"
    r"|base_model\.model\..*(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))",
    re.DOTALL,
)


def is_lycoris(source: Source) -> bool:
    """LyCORIS' LoHa or LoKr: such a file is its own, with whatever pairs in kohya's keys it holds besides."""
    return not is_peft_lycoris(source) and _any(source, _LYCORIS.fullmatch)


def is_peft_lycoris(source: Source) -> bool:
    """PEFT's LoHa or LoKr: the same parameters, but the scale is in the configuration."""
    told = source.config.get("peft_type") if source.config else None
    if told in ("LOHA", "LOKR"):
        return _any(source, _LYCORIS.fullmatch) or _any(source, _PEFT_LYCORIS.fullmatch)
    return _any(source, _PEFT_LYCORIS.fullmatch)


def is_litgpt(source: Source) -> bool:
    """LitGPT, where loralib would have the same suffixes."""
    return _any(source, _LITGPT.fullmatch)


def is_minlora(source: Source) -> bool:
    """MinLoRA's parametrizations, where loralib would have the same suffixes."""
    return _any(source, _MINLORA.fullmatch)


def is_gguf(source: Source) -> bool:
    """llama.cpp, where MLX would have the same suffixes."""
    return _any(source, _GGUF.fullmatch)


def is_xlabs(source: Source) -> bool:
    """XLabs' Flux processors, where old diffusers would have the same suffixes."""
    return _any(source, _XLABS.fullmatch)


def is_pipeline(source: Source) -> bool:
    """A file for an image pipeline in PEFT's keys but without its configuration, which then decides no scale."""
    return source.config is None and _any(source, _PIPELINE.fullmatch)


def is_mlx_vlm(config: Mapping[str, Any] | None) -> bool:
    """The configuration of mlx-vlm: a rank and a multiplier called alpha, nothing of PEFT's or mlx-lm's.

    Examples
    --------
    >>> is_mlx_vlm({"rank": 10, "alpha": 0.1, "dropout": 0.1}), is_mlx_vlm({"peft_type": "LORA", "r": 8})
    (True, False)
    """
    if config is None or "peft_type" in config or "lora_parameters" in config:
        return False
    return "rank" in config and "alpha" in config


def _any(source: Source, matches: Callable[[str], object]) -> bool:
    return any(matches(key) for key in source.tensors.layout)
