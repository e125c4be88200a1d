"""microsoft/LoRA's loralib: ``<module>.lora_A`` and ``<module>.lora_B`` with no suffix, no alpha and no rank.

``MergedLinear`` layers keep several groups in one pair (see `_fused`); the file does not say which of q, k and v they
are.
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _fused as fused
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import LowRankUpdate, Scale

__all__ = ["FORMAT"]


def _claims(source: Source) -> bool:
    layout = source.tensors.layout
    if source.config is not None and source.config.get("peft_type", "LORA") != "LORA":
        return False
    if (
        any(key.endswith("lora_E") for key in layout)
        or dialects.is_litgpt(source)
        or dialects.is_minlora(source)
    ):
        return False
    return any(key == "lora_A" or key.endswith((".lora_A", ".lora_B")) for key in layout)


def _read(source: Source) -> Reading:
    modules = in_order(
        {
            key[: -len(".lora_A")]
            for key in source.tensors.layout
            if f".{key}".endswith((".lora_A", ".lora_B"))
        }
    )
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for module in modules:
        prefix = f"{module}." if module else ""
        used |= {f"{prefix}lora_A", f"{prefix}lora_B"}
        updates += _updates(module, f"{prefix}lora_A", f"{prefix}lora_B", source)
    ignored, unknown = pairs.other_tensors(source, used)
    notes = () if source.scales else (scale_unknown("loralib files hold no alpha"),)
    return Reading(tuple(updates), ignored, unknown, notes)


def _updates(module: str, a: str, b: str, source: Source) -> list[LowRankUpdate]:
    for has, lacks in ((a, b), (b, a)):
        if lacks not in source.tensors.layout:
            raise pairs.unpaired(module, has.rpartition(".")[2], lacks.rpartition(".")[2], source)
    A, B = source.factor(a), source.factor(b)
    value = source.scales.get(module)
    scale = Scale(None, "unknown") if value is None else Scale(value, "module")
    enabled = source.groups.get(module, source.enabled)
    if fused.is_fused(A, B) or fused.is_group(A, B, enabled):
        return fused.split(A, B, module, scale=scale, enabled=enabled, source=source)
    pairs.check_rank(A, B, module, source)
    return [LowRankUpdate(module, A, B, scale)]


FORMAT = Format(
    name="loralib",
    about="microsoft/LoRA: the file holds no alpha, so the scale is unknown (loralib/utils.py, lora_state_dict)",
    claims=_claims,
    read=_read,
)
