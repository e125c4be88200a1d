"""Keys of diffusers before it had PEFT's, which it still writes for some layers: ``<path>.lora.down.weight``."""

from __future__ import annotations

import re

__all__ = ["is_factor", "part"]

_FACTOR = re.compile(
    r"(?P<path>.+?)(?P<style>\.lora|\.lora_linear_layer|_lora)\.(?P<part>down|up)\.weight", re.DOTALL
)
_ALPHA = re.compile(
    r"(?P<path>.+?)(?P<style>\.lora|\.lora_linear_layer|_lora|)(?:\.down\.weight)?\.(?:network_)?alpha",
    re.DOTALL,
)
_DORA = re.compile(r"(?P<path>.+?)(?P<style>)\.(?:dora_scale|lora_magnitude_vector(?:\.weight)?)", re.DOTALL)
_OF_ENCODER = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_OF_UNET = {"to_out": "to_out.0"}


def is_factor(key: str) -> bool:
    """Whether a key is of a factor."""
    return _FACTOR.fullmatch(key) is not None


def part(key: str) -> tuple[str, str] | None:
    """Module and part of a key.

    Examples
    --------
    >>> part("mid_block.attentions.0.attn1.processor.to_out_lora.up.weight")
    ('mid_block.attentions.0.attn1.to_out.0', 'up')
    """
    for pattern, name in ((_FACTOR, None), (_ALPHA, "alpha"), (_DORA, "dora")):
        match = pattern.fullmatch(key)
        if match is not None:
            return _module(match["path"], match["style"]), name or match["part"]
    return None


def _module(path: str, style: str) -> str:
    """Path of the layer in a current model.

    References
    ----------
    huggingface/diffusers, src/diffusers/utils/state_dict_utils.py: ``UNET_TO_DIFFUSERS`` and
    ``DIFFUSERS_OLD_TO_PEFT``; loaders/unet.py: ``format_to_lora_compatible``.
    """
    parts = [part for part in path.split(".") if part != "processor"]
    if style == "_lora" and parts:
        encoder = parts[0].startswith("text_encoder") or "text_model" in parts
        parts[-1] = (_OF_ENCODER if encoder else _OF_UNET).get(parts[-1], parts[-1])
    return ".".join(parts)
