"""microsoft/LoRA's loralib: ``<module>.lora_A`` and ``<module>.lora_B`` with no suffix, no alpha and no rank.

``MergedLinear`` layers keep several groups in one pair (see `_fused`); the file does not say which of q, k and v they
are.
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _factor_layout as layout
from subspace.adapters.formats import _fused as fused
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import Factor, LowRankUpdate, Scale

__all__ = ["FORMAT"]


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
    modules = in_order(
        {
            key[: -len(".lora_A")]
            for key in source.tensors.layout
            if f".{key}".endswith((".lora_A", ".lora_B"))
        }
    )
    stored = {module: _stored(module, source) for module in modules}
    plain = {m: pair for m, pair in stored.items() if not _is_known(m, pair, source)}
    turned, notes = layout.oriented(plain, source)
    updates = [update for m, pair in (stored | turned).items() for update in _updates(m, *pair, source)]
    used = {_key(module, part) for module in modules for part in "AB"}
    ignored, unknown = pairs.other_tensors(source, used)
    if not source.scales:
        notes.append(scale_unknown("loralib files hold no alpha"))
    return Reading(tuple(updates), ignored, unknown, tuple(notes))


def _key(module: str, part: str) -> str:
    return f"{module}.lora_{part}" if module else f"lora_{part}"


def _stored(module: str, source: Source) -> layout.Pair:
    """A and B of a module, as the file has them."""
    for has, lacks in ("AB", "BA"):
        if _key(module, lacks) not in source.tensors.layout:
            raise pairs.unpaired(module, f"lora_{has}", f"lora_{lacks}", source)
    return source.factor(_key(module, "A")), source.factor(_key(module, "B"))


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


def _updates(module: str, A: Factor, B: Factor, source: Source) -> list[LowRankUpdate]:
    value = source.scales.get(module)
    scale = Scale(None, "unknown") if value is None else Scale(value, "module")
    if _has_groups(module, (A, B), source):
        enabled = source.groups.get(module, source.enabled)
        return fused.split(A, B, module, scale=scale, enabled=enabled, source=source)
    pairs.check_rank(A, B, module, source)
    return [LowRankUpdate(module, A, B, scale)]


FORMAT = Format(
    name="loralib",
    about="microsoft/LoRA: the file holds no alpha, so the scale is unknown (loralib/utils.py, lora_state_dict)",
    claims=_claims,
    read=_read,
)
