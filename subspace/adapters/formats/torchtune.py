"""torchtune: ``<module>.lora_a.weight`` (r, d_in) and ``<module>.lora_b.weight`` (d_out, r), as two linear layers.

The configuration next to the file (``adapter_config.json``) has PEFT's fields.
"""

from __future__ import annotations

import re

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats._peft_config import PeftConfig
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.flags import Flag

__all__ = ["FORMAT"]

_KEY = re.compile(r"(?:(?P<module>.*)\.)?(?P<part>lora_a|lora_b)\.weight", re.DOTALL)


def _claims(source: Source) -> bool:
    return any(_KEY.fullmatch(key) for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    config = None if source.config is None else PeftConfig.parse(source.config, source.config_place)
    modules = pairs.by_module(source.tensors.layout, _KEY)
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for module, keys in modules.items():
        magnitude = f"{module}.magnitude"
        dora = magnitude in source.tensors.layout
        used.update(keys.values(), [magnitude] if dora else [])
        updates.append(_update(module, keys, dora, config, source))
    ignored, unknown = pairs.other_tensors(source, used)
    notes: list[str] = (
        config.notes() if config else [scale_unknown("there is no adapter_config.json next to the file")]
    )
    return Reading(tuple(updates), ignored, unknown, tuple(notes))


def _update(
    module: str, keys: dict[str, str], dora: bool, config: PeftConfig | None, source: Source
) -> LowRankUpdate:
    """One update.

    References
    ----------
    pytorch/torchtune 0.6, modules/peft/lora.py: ``LoRALinear.forward``, ``(alpha / rank) * lora_b(lora_a(x))``;
    modules/peft/dora.py: ``DoRALinear.magnitude``.
    """
    pairs.require_both(keys, "lora_a", "lora_b", module, source)
    A, B = source.factor(keys["lora_a"]), source.factor(keys["lora_b"])
    pairs.check_rank(A, B, module, source)
    scale = config.scale(module, A.shape[0]) if config else Scale(None, "unknown")
    if module in source.scales:
        scale = Scale(source.scales[module], "module")
    return LowRankUpdate(module, A, B, scale, flags=(Flag.DORA,) if dora else ())


FORMAT = Format(
    name="torchtune",
    about="torchtune, lora_a.weight and lora_b.weight: scale lora_alpha / r of adapter_config.json, unknown without "
    "(torchtune 0.6, modules/peft/lora.py)",
    claims=_claims,
    read=_read,
)
