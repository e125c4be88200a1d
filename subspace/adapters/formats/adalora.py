"""AdaLoRA of PEFT: ``lora_A`` (r, d_in), ``lora_B`` (d_out, r) and ``lora_E`` (r, 1), ``delta_W = scale B (A * E)``.

E stands for singular values and is multiplied into the rows of A. Where it is 0, the direction was pruned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from subspace.adapters.format import Format, Ignored, Reading, Source, scale_unknown
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _peft_keys as peftkeys
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError
from subspace.text import shown

__all__ = ["FORMAT"]

_KEY = peftkeys.pattern("lora_A|lora_B|lora_E|ranknum", not_names="weight")
_LARGEST = 1e30
_EPSILON = 1e-5  # peft/tuners/adalora/layer.py adds it to ranknum


def _claims(source: Source) -> bool:
    return any(".lora_E" in f".{key}" for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    pruned: list[Ignored] = []
    modules, others = peftkeys.sorted_by_module(source, _KEY)
    for module, keys in modules.items():
        used.update(keys.values())
        if all(0 in source.shape(key) for part, key in keys.items() if part != "ranknum"):
            pruned += [Ignored(key, "of a module that AdaLoRA pruned to rank 0") for key in keys.values()]
        elif set(keys) != {"ranknum"}:
            updates.append(_update(module, keys, source))
    ignored, unknown = pairs.other_tensors(source, used | {entry.key for entry in others})
    unscaled = any(update.scale.value is None for update in updates)
    notes = (scale_unknown("there is no lora_alpha next to the file"),) if unscaled else ()
    return Reading(tuple(updates), (*others, *pruned, *ignored), unknown, notes)


def _update(module: str, keys: Mapping[str, str], source: Source) -> LowRankUpdate:
    for lacks in ("lora_A", "lora_B", "lora_E"):
        if lacks not in keys:
            raise pairs.unpaired(module, " and ".join(sorted(keys)), lacks, source)
    A, B, E = (source.factor(keys[part]) for part in ("lora_A", "lora_B", "lora_E"))
    pairs.check_rank(A, B, module, source)
    if E.shape != (A.shape[0], 1):
        raise ShapeError(
            f"E does not have one number per row of A: A is {list(A.shape)} and E is {list(E.shape)}, "
            f"in {source.place(module)}"
        )
    return LowRankUpdate(
        module=module,
        A_factor=Factor(A.shape, A.dtype, lambda: A.load().astype(np.float64) * E.load()),
        B_factor=B,
        scale=_scale(module, keys, A.shape[0], source),
        fan_in_fan_out=source.fan_in_fan_out,
    )


def _scale(module: str, keys: Mapping[str, str], r: int, source: Source) -> Scale:
    """``lora_alpha / (ranknum + 1e-5)``; ranknum is ``init_r`` whatever rank is left, and an alpha of 0 means r.

    References
    ----------
    huggingface/peft 0.21.2, tuners/adalora/layer.py: ``SVDLinear.get_delta_weight`` and ``update_layer``;
    tuners/adalora/model.py: ``resize_modules_by_rank_pattern`` ("The scaling is exactly as the previous").
    """
    config, where = source.config or {}, source.config_place
    alpha = source.scales.get(module, _number("lora_alpha", config.get("lora_alpha"), where))
    if alpha is None:
        return Scale(None, "unknown")
    if "ranknum" in keys:
        ranknum = source.tensors.read_scalar(keys["ranknum"])
    else:
        ranknum = _number("init_r", config.get("init_r"), where) or float(r)
    if ranknum < 0:
        raise FormatError(f"Invalid ranknum: {ranknum} is negative, in {source.place(module)}")
    return Scale((alpha if alpha > 0 else float(r)) / (ranknum + _EPSILON), "config alpha/ranknum", alpha)


def _number(name: str, value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        raise FormatError(f"Invalid {name}: {shown(repr(value))} is not a number, in {where}")
    return float(value)


FORMAT = Format(
    name="adalora",
    about="AdaLoRA of PEFT, lora_E with lora_A and lora_B: scale lora_alpha / (init_r + 1e-5) "
    "(peft 0.21.2, tuners/adalora/layer.py)",
    claims=_claims,
    read=_read,
)
