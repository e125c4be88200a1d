"""Base weights that are stored as something else than their numbers, told by the names beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["packed_modules", "refusal", "refuse_quantised"]

_PACKED = {
    "qweight": "GPTQ or AWQ (qweight)",
    "weight_packed": "compressed-tensors (weight_packed)",
    "W_q": "HQQ (W_q)",
    "weight.SCB": "bitsandbytes int8 (SCB)",
    "SCB": "bitsandbytes int8 (SCB)",
    "weight.absmax": "bitsandbytes 4-bit (absmax)",
}
_SCALED = {
    "weight_scale_inv": "8-bit floats with scales beside them (weight_scale_inv)",
    "weight_scale": "8-bit floats with scales beside them (weight_scale)",
    "scale_weight": "8-bit floats with scales beside them (scale_weight)",
}


def packed_modules(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Module -> (key, what it is) of every weight that is kept packed."""
    found = {}
    for key in keys:
        for suffix, what in _PACKED.items():
            if key.endswith(f".{suffix}"):
                found[key[: -len(suffix) - 1]] = key, what
    return found


def refuse_quantised(key: str, layout: Mapping[str, Any], path: str) -> None:
    """Raise `FormatError` unless a weight is stored as its own floating point numbers.

    Plain 8-bit floats are; those with a scale beside them are not, and are refused rather than read without it.
    """
    dtype, stem = layout[key].dtype, key.removesuffix(".weight")
    if dtype.startswith("float8"):
        beside = [what for suffix, what in _SCALED.items() if f"{stem}.{suffix}" in layout]
        if beside:
            raise refusal(key, beside[0], path)
    if not dtype.startswith(("float", "bfloat")):
        beside = [what for suffix, what in _PACKED.items() if f"{stem}.{suffix}" in layout]
        raise refusal(key, beside[0] if beside else f"{shown(dtype)} numbers", path)


def refusal(key: str, what: str, path: str) -> FormatError:
    """The error that a weight is quantised, and how."""
    return FormatError(
        f"a base weight must be stored as floating point numbers: {shown(key)} is quantised, {what}, "
        f"in {shown(path, longest=1000)}; dequantise the model first"
    )
