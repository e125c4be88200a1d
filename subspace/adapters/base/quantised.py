"""Quantised base weights, recognised by the tensors that are stored with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from subspace.adapters.place import place
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
    "weight_scale_inv": "8-bit floats with separate scales (weight_scale_inv)",
    "weight_scale": "8-bit floats with separate scales (weight_scale)",
    "scale_weight": "8-bit floats with separate scales (scale_weight)",
}


def packed_modules(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Module -> (key, kind of quantisation) of every weight that is stored packed."""
    found = {}
    for key in keys:
        for suffix, what in _PACKED.items():
            if key.endswith(f".{suffix}"):
                found[key[: -len(suffix) - 1]] = key, what
    return found


def refuse_quantised(key: str, layout: Mapping[str, Any], path: str) -> None:
    """Raise `FormatError` unless a weight is stored as its own floating point numbers.

    8-bit floats are, except those with a separate scale, which must not be read without it.
    """
    dtype, stem = layout[key].dtype, key.removesuffix(".weight")
    if dtype.startswith("float8"):
        kinds = [what for suffix, what in _SCALED.items() if f"{stem}.{suffix}" in layout]
        if kinds:
            raise refusal(key, kinds[0], path)
    if not dtype.startswith(("float", "bfloat")):
        kinds = [what for suffix, what in _PACKED.items() if f"{stem}.{suffix}" in layout]
        raise refusal(key, kinds[0] if kinds else f"{shown(dtype)} numbers", path)


def refusal(key: str, what: str, path: str) -> FormatError:
    """The error that a weight is quantised, and how."""
    return FormatError(
        f"The base weight {shown(key)} is quantised: {what}, in {place(path)}; dequantise the model first"
    )
