"""microsoft/LoRA's loralib: ``<module>.lora_A`` and ``<module>.lora_B`` with no suffix, no alpha and no rank.

``MergedLinear`` layers keep several groups in one pair (see `_fused`); the file does not say which of q, k and v they
are. The library adapters has the same parameters, ``<module>.loras.<adapter>.lora_A``, and a JSON with r and alpha.
"""

from __future__ import annotations

import re
from dataclasses import replace

from subspace.adapters.choice import chosen_adapter
from subspace.adapters.format import Format, Ignored, Reading, Role, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _factor_layout as layout
from subspace.adapters.formats import _fused as fused
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _settings as settings
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.flags import Flag

__all__ = ["FORMAT"]

_MAGNITUDE = "magnitude_vector"  # of DoRA, in a model in memory that ``subspace.training`` adapted
_KEY = re.compile(
    r"(?:(?P<module>.*?)(?:(?:^|\.)loras\.(?P<adapter>[^.]+))?\.)?lora_(?P<part>[AB]|magnitude_vector)",
    re.DOTALL,
)


def _claims(source: Source) -> bool:
    keys = source.tensors.layout
    if source.config is not None and source.config.get("peft_type", "LORA") != "LORA":
        return False
    if (
        any(key.endswith("lora_E") for key in keys)
        or dialects.is_litgpt(source)
        or dialects.is_minlora(source)
    ):
        return False
    return any(key == "lora_A" or key.endswith((".lora_A", ".lora_B")) for key in keys)


def _read(source: Source) -> Reading:
    keys, others = _keys(source)
    stored = {module: _stored(module, keys[module], source) for module in in_order(keys)}
    declared = settings.declared(source)
    plain = {m: pair for m, pair in stored.items() if not _is_known(m, pair, source)}
    turned, notes = layout.oriented(plain, source, rank=declared.rank)
    factors = stored | turned
    scales = {module: _scale(module, *pair, declared, source) for module, pair in factors.items()}
    updates = [update for m, pair in factors.items() for update in _updates(m, *pair, scales[m], source)]
    updates = [replace(u, flags=(Flag.DORA,)) if _MAGNITUDE in keys.get(u.module, ()) else u for u in updates]
    used = {key for parts in keys.values() for key in parts.values()}
    ignored, unknown = pairs.other_tensors(source, used | {item.key for item in others})
    if not source.scales:
        notes += declared.notes(scales, "loralib files hold no alpha")
    return Reading(tuple(updates), (*others, *ignored), unknown, tuple(notes))


def _keys(source: Source) -> tuple[dict[str, dict[str, str]], list[Ignored]]:
    """Module -> part -> key, of the one adapter that is asked for, and the tensors of others."""
    found: dict[str | None, dict[str, dict[str, str]]] = {}
    for key in source.tensors.layout:
        match = _KEY.fullmatch(key)
        if match is not None:
            of_adapter = found.setdefault(match["adapter"], {})
            of_adapter.setdefault(match["module"] or "", {})[match["part"]] = key
    if not set(found) - {None}:
        return found.get(None, {}), []
    chosen = chosen_adapter(found, source.adapter_name, source.path)
    return found[chosen], [
        Ignored(key, "of another adapter", Role.OTHER_ADAPTER)
        for adapter, modules in found.items()
        if adapter != chosen
        for parts in modules.values()
        for key in parts.values()
    ]


def _stored(module: str, keys: dict[str, str], source: Source) -> layout.Pair:
    """A and B of a module, as the file has them."""
    pairs.require_both(keys, "A", "B", module, source, prefix="lora_")
    return source.factor(keys["A"]), source.factor(keys["B"])


def _is_known(module: str, pair: layout.Pair, source: Source) -> bool:
    """Whether it is clear how a pair is stored: groups in one pair, or a layer of loralib in a model in memory."""
    if _has_groups(module, pair, source):
        return True
    fits = pair[0].shape[0] == pair[1].shape[1]
    return module in source.scales and fits and not layout.is_turned(*pair, module, source)


def _has_groups(module: str, pair: layout.Pair, source: Source) -> bool:
    A, B = pair
    groups = source.groups.get(module, source.enabled)
    if groups is None and layout.is_turned(A, B, module, source):
        return False
    # A of d_in = r would be A stored (d_in, r)
    return (fused.is_fused(A, B) and A.shape[1] > B.shape[1]) or fused.is_group(A, B, groups)


def _scale(module: str, A: Factor, B: Factor, declared: settings.Declared, source: Source) -> Scale:
    """The multiplier that the layer of a model in memory applies, else what the settings say."""
    value = source.scales.get(module)
    # a group of a fused layer has the rank that B has; for one pair it is that of A too
    return declared.scale_of(module, B.shape[1]) if value is None else Scale(value, "module")


def _updates(module: str, A: Factor, B: Factor, scale: Scale, source: Source) -> list[LowRankUpdate]:
    if _has_groups(module, (A, B), source):
        enabled = source.groups.get(module, source.enabled)
        return fused.split(A, B, module, scale=scale, enabled=enabled, source=source)
    pairs.check_rank(A, B, module, source)
    return [LowRankUpdate(module, A, B, scale)]


FORMAT = Format(
    name="loralib",
    about="microsoft/LoRA and adapters: the scale is unknown, unless an alpha or scale is saved with the tensors "
    "(loralib/utils.py, lora_state_dict; adapters/methods/lora.py)",
    claims=_claims,
    read=_read,
)
