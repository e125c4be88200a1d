"""Keys that two libraries write alike, and what tells them apart; both formats ask here, so that exactly one fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from subspace.adapters.format import Source
from subspace.adapters.naming.image_models import is_of_image_model

__all__ = [
    "is_gguf",
    "is_litgpt",
    "is_lycoris",
    "is_minlora",
    "is_mlx_vlm",
    "is_peft_lycoris",
    "is_per_component",
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
# a raw state dict has the name of the adapter, and PEFT's own files its prefix
_PIPELINE = re.compile(
    r"(?!base_model\.model\.)(?P<module>.+)\.lora_[AB](?P<name>\.[^.]+)?\.weight", re.DOTALL
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
    config = source.config or {}
    # of one adapter, or of the components of a pipeline
    if any(f".{key}".endswith(".peft_type") and kind in ("LOHA", "LOKR") for key, kind in config.items()):
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
    """A file for an image pipeline, with PEFT's keys, and without PEFT's configuration or with one per component."""
    known = source.config is not None and is_per_component(source.config)
    if source.config is not None and not known:
        return False
    found = [match for match in map(_PIPELINE.fullmatch, source.tensors.layout) if match]
    # PEFT's format chooses among adapters; one alone, called as PEFT calls it, is read as if it had no name
    names = {match["name"] for match in found}
    if names - {None, ".default"} or (".default" in names and source.adapter_name not in (None, "default")):
        return False
    return any(known or is_of_image_model(match["module"]) for match in found)


def is_per_component(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is one of diffusers for several models, with keys such as ``unet.r``.

    Examples
    --------
    >>> is_per_component({"unet.r": 4, "text_encoder.r": 2}), is_per_component({"r": 4, "peft_type": "LORA"})
    (True, False)
    """
    return "peft_type" not in config and "r" not in config and any("." in key for key in config)


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
