"""Keys that two libraries write alike, and what tells them apart; both formats ask here, so that exactly one fits."""

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

# the fused attention and the two halves of a gated MLP have names of their own in LitGPT
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
# LyCORIS has the name of the parameter alone, PEFT a prefix or the name of the adapter with it
_LYCORIS = re.compile(r"(?:.+\.)?(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))", re.DOTALL)
# a rotation of LyCORIS or sd-scripts, and the mark of LyCORIS' IA3
_LYCORIS_OTHER = re.compile(r"(?:.+\.)?(?:oft_blocks(?:\.\d)?|on_input)", re.DOTALL)
_GLORA = ("a1", "a2", "b1", "b2")
_PEFT_LYCORIS = re.compile(
    r"(?:.+\.)?(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))\.[^.]+"
    r"|base_model\.model\..*(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))",
    re.DOTALL,
)


def is_lycoris(source: Source) -> bool:
    """A module of LyCORIS in the file: LoHa, LoKr, OFT, BOFT, GLoRA or IA3, with or without pairs in kohya's keys."""
    if is_peft_lycoris(source):
        return False
    return _any(source, _LYCORIS.fullmatch) or _any(source, _LYCORIS_OTHER.fullmatch) or _is_glora(source)


def _is_glora(source: Source) -> bool:
    """Whether a module has all four factors of GLoRA, whose names alone are too short to tell."""
    keys = source.tensors.layout
    modules = (key.removesuffix("a1.weight") for key in keys if f".{key}".endswith(".a1.weight"))
    return any(all(f"{module}{name}.weight" in keys for name in _GLORA) for module in modules)


def is_peft_lycoris(source: Source) -> bool:
    """LoHa or LoKr of PEFT: the parameters of LyCORIS, with the scale in the configuration."""
    peft_type = source.config.get("peft_type") if source.config else None
    if peft_type in ("LOHA", "LOKR"):
        return _any(source, _LYCORIS.fullmatch) or _any(source, _PEFT_LYCORIS.fullmatch)
    return _any(source, _PEFT_LYCORIS.fullmatch)


def is_litgpt(source: Source) -> bool:
    """LitGPT, which has the suffixes of loralib."""
    return _any(source, _LITGPT.fullmatch)


def is_minlora(source: Source) -> bool:
    """Parametrizations of minLoRA, which has the suffixes of loralib."""
    return _any(source, _MINLORA.fullmatch)


def is_gguf(source: Source) -> bool:
    """Names of llama.cpp, which has the suffixes of MLX."""
    return _any(source, _GGUF.fullmatch)


def is_xlabs(source: Source) -> bool:
    """Flux processors of XLabs, which has the suffixes of old diffusers."""
    return _any(source, _XLABS.fullmatch)


def is_pipeline(source: Source) -> bool:
    """A file for an image pipeline, with PEFT's keys and without PEFT's configuration."""
    return source.config is None and _any(source, _PIPELINE.fullmatch)


def is_mlx_vlm(config: Mapping[str, Any] | None) -> bool:
    """The configuration of mlx-vlm: a rank and a multiplier called alpha, without the fields of PEFT or mlx-lm.

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
