"""XLabs' x-flux: ``double_blocks.0.processor.qkv_lora1.down.weight``, attention processors of Flux.

``lora1`` is of the stream of the image and ``lora2`` of that of the text; modules get their names in Flux
(``double_blocks.0.img_attn.qkv``).
"""

from __future__ import annotations

import re
from dataclasses import replace

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import LowRankUpdate, Scale

__all__ = ["FORMAT"]

_KEY = re.compile(
    r"(?P<block>(?:.*\.)?(?P<kind>double|single)_blocks\.\d+)\.processor\.(?P<layer>qkv|proj)_lora(?P<stream>[12]?)"
    r"\.(?P<part>down|up)\.weight",
    re.DOTALL,
)
_STREAM = {"1": "img_attn", "2": "txt_attn"}
_SINGLE = {"qkv": "linear1[qkv]", "proj": "linear2"}


def _read(source: Source) -> Reading:
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for module, keys in downup.sorted_by_module(source, _part).items():
        if downup.complete(module, keys, ("down", "up"), source):
            update = downup.update(module, keys, _scale(module, source), source)
            # the first rows of linear1 in a single block are q, k and v, the others those of the MLP
            updates.append(replace(update, rows=(0, update.d_out)) if module.endswith("[qkv]") else update)
            used.update(keys.values())
    return Reading(tuple(updates), *pairs.other_tensors(source, used))


def _part(key: str) -> tuple[str, str] | None:
    """Module and part of a key.

    Examples
    --------
    >>> _part("double_blocks.0.processor.proj_lora2.up.weight")
    ('double_blocks.0.txt_attn.proj', 'up')
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    double = match["kind"] == "double" and match["stream"] in _STREAM
    layer = f"{_STREAM[match['stream']]}.{match['layer']}" if double else _SINGLE[match["layer"]]
    return f"{match['block']}.{layer}", match["part"]


def _scale(module: str, source: Source) -> Scale:
    """1: XLabs' layers have no ``network_alpha``, and the file holds none.

    References
    ----------
    XLabs-AI/x-flux (head of 2024), src/flux/modules/layers.py: ``LoRALinearLayer.forward``,
    ``DoubleStreamBlockLoraProcessor.forward`` and ``SingleStreamBlockLoraProcessor.forward`` with ``lora_weight`` 1.
    """
    if module in source.scales:
        return Scale(source.scales[module], "module")
    return Scale(1.0, "no alpha: 1 in x-flux")


FORMAT = Format(
    name="xlabs",
    about="XLabs x-flux, processor.qkv_lora1.down of Flux: scale 1, its layers have no network_alpha "
    "(x-flux src/flux/modules/layers.py)",
    claims=dialects.is_xlabs,
    read=_read,
)
