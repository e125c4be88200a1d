"""diffusers before it had PEFT's keys: ``<path>.lora.down.weight``, and attention processors before that.

A module gets the same name from each of three layouts, so that files match one another and those with PEFT's keys:

- ``unet.<path>.to_out.0.lora.down.weight`` -> ``unet.<path>.to_out.0``
- ``<path>.processor.to_out_lora.down.weight`` -> ``<path>.to_out.0``
- ``text_encoder.<path>.to_q_lora.down.weight`` and ``<path>.q_proj.lora_linear_layer.down.weight`` -> ``<path>.q_proj``

A prefix ``unet.`` or ``text_encoder.`` stays: it distinguishes two encoders, and modules match by the end of the path.
"""

from __future__ import annotations

import re

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import LowRankUpdate, Scale

__all__ = ["FORMAT"]

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


def _claims(source: Source) -> bool:
    return any(_FACTOR.fullmatch(key) for key in source.tensors.layout) and not dialects.is_xlabs(source)


def _read(source: Source) -> Reading:
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for module, keys in downup.sorted_by_module(source, _part).items():
        if downup.complete(module, keys, ("lora.down", "lora.up"), source):
            updates.append(downup.update(module, keys, _scale(module, keys, source), source))
            used.update(keys.values())
    ignored, unknown = pairs.other_tensors(source, used)
    return Reading(tuple(updates), ignored, unknown)


def _part(key: str) -> tuple[str, str] | None:
    """Module and part of a key.

    Examples
    --------
    >>> _part("mid_block.attentions.0.attn1.processor.to_out_lora.up.weight")
    ('mid_block.attentions.0.attn1.to_out.0', 'up')
    """
    for pattern, part in ((_FACTOR, None), (_ALPHA, "alpha"), (_DORA, "dora")):
        match = pattern.fullmatch(key)
        if match is not None:
            return _module(match["path"], match["style"]), part or match["part"]
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


def _scale(module: str, keys: dict[str, str], source: Source) -> Scale:
    """``alpha / r`` where the file holds an alpha, which is rare, else 1.

    References
    ----------
    huggingface/diffusers, src/diffusers/models/lora.py: ``LoRALinearLayer.forward`` multiplies by
    ``network_alpha / rank`` only if ``network_alpha`` is not None.
    """
    return downup.scale_or_1(module, keys, source, otherwise="no alpha: 1 in diffusers")


FORMAT = Format(
    name="diffusers",
    about="diffusers, lora.down and lora.up or attention processors: scale alpha / r, 1 without alpha "
    "(diffusers models/lora.py)",
    claims=_claims,
    read=_read,
)
