"""minLoRA: ``<module>.parametrizations.weight.0.lora_A`` and ``lora_B``, swapped where the weight is (fan_in, fan_out).

A linear layer or convolution has A (r, fan_in) and B (fan_out, r), flattened. An embedding (and any weight stored
(fan_in, fan_out)) has A (fan_in, r) and B (r, fan_out): the shape of the dropout mask, or the smaller rank, decides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from subspace.adapters.format import Format, Ignored, Reading, Role, Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.flags import Flag

__all__ = ["FORMAT"]

_KEY = re.compile(
    r"(?:(?P<module>.*)\.)?parametrizations\.(?P<weight>[^.]+)\.(?P<place>\d+)\.(?P<part>lora_A|lora_B|lora_dropout_mask)",
    re.DOTALL,
)
_ORIGINAL = re.compile(r"(?:.*\.)?parametrizations\.[^.]+\.original", re.DOTALL)


def _read(source: Source) -> Reading:
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for key in source.tensors.layout:
        match = _KEY.fullmatch(key)
        if match is not None:
            weight = "" if match["weight"] == "weight" else f".{match['weight']}"
            found[(match["module"] or "") + weight, match["place"]][match["part"]] = key
    stacked = {module for module, place in found if place != "0"}
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for (module, place), keys in found.items():
        factors = [key for part, key in keys.items() if part != "lora_dropout_mask"]
        if factors:
            name = f"{module}[{place}]" if module in stacked else module
            updates.append(_update(name, keys, (Flag.STACKED,) if module in stacked else (), source))
            used.update(factors)
    ignored, unknown = pairs.other_tensors(source, used)
    originals = [key for key in unknown if _ORIGINAL.fullmatch(key)]
    ignored += tuple(Ignored(key, "a weight of the base model", Role.BASE) for key in originals)
    notes: list[str] = [scale_unknown("minLoRA files hold no lora_alpha")]
    if stacked:
        notes.append(
            "Several parametrizations of one weight add up; each is a module of its own here, module[0], module[1], ..."
        )
    return Reading(
        tuple(updates), ignored, tuple(key for key in unknown if key not in originals), tuple(notes)
    )


def _update(module: str, keys: Mapping[str, str], flags: tuple[Flag, ...], source: Source) -> LowRankUpdate:
    """One parametrization.

    References
    ----------
    cccntu/minLoRA, minlora/model.py (head of 2023): ``LoRAParametrization.__init__``, ``swap`` and ``from_embedding``;
    ``scaling = lora_alpha / rank`` is no part of the state dict.
    """
    pairs.require_both(keys, "lora_A", "lora_B", module, source)
    A, B = source.factor(keys["lora_A"]), source.factor(keys["lora_B"])
    swapped = _swapped(A.shape, B.shape, keys, source)
    if swapped:
        A, B = A.T, B.T
    pairs.check_rank(A, B, module, source)
    return LowRankUpdate(module, A, B, Scale(None, "unknown"), fan_in_fan_out=swapped, flags=flags)


def _swapped(A: tuple[int, int], B: tuple[int, int], keys: Mapping[str, str], source: Source) -> bool:
    plain, swapped = A[0] == B[1], A[1] == B[0]
    if not (plain and swapped):
        return swapped
    mask = source.shape(keys["lora_dropout_mask"]) if "lora_dropout_mask" in keys else ()
    # (1, fan_in), or (fan_in, 1) where A and B are swapped
    if mask in {(1, A[1]), (A[0], 1)} and mask != (1, 1):
        return mask == (A[0], 1)
    return A[1] < A[0]


FORMAT = Format(
    name="minlora",
    about="minLoRA, parametrizations.weight.0.lora_A: the file holds no alpha, so the scale is unknown "
    "(minlora/model.py)",
    claims=dialects.is_minlora,
    read=_read,
)
