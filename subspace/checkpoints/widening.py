"""Stored floating point numbers as numbers that NumPy can compute with, by one table of types.

Every widening is exact: bfloat16 is the upper half of a float32, and each of the 256 codes of an 8-bit
float has one value. Integers, booleans and complex numbers are not weights, and the callers refuse them.

References
----------
Micikevicius et al., "FP8 formats for deep learning", arXiv 2209.05433, table 1 (E4M3, E5M2).
Noune et al., "8-bit numerical formats for deep neural networks", arXiv 2206.02915 (the fnuz variants).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BITS", "FLOATS", "STORAGE", "widen", "widened_dtype", "without_signals"]

# (exponent bits, mantissa bits, bias, finite only, unsigned zero)
_FLOAT8 = {
    "float8_e4m3fn": (4, 3, 7, True, False),
    "float8_e5m2": (5, 2, 15, False, False),
    "float8_e4m3fnuz": (4, 3, 8, True, True),
    "float8_e5m2fnuz": (5, 2, 16, True, True),
}

# the NumPy type that holds the bytes of each type; little-endian, as every container stores them
STORAGE: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(code) for name, code in (
        ("float64", "<f8"), ("float32", "<f4"), ("float16", "<f2"), ("bfloat16", "<u2"),
        ("int8", "|i1"), ("int16", "<i2"), ("int32", "<i4"), ("int64", "<i8"),
        ("uint8", "|u1"), ("uint16", "<u2"), ("uint32", "<u4"), ("uint64", "<u8"),
        ("bool", "|b1"), ("complex64", "<c8"), ("complex128", "<c16"),
    )},
    **dict.fromkeys(_FLOAT8, np.dtype("|u1")),
}  # fmt: skip

FLOATS = frozenset({"float64", "float32", "float16", "bfloat16", *_FLOAT8})

# bits of one element; the last four are safetensors' names of types that NumPy cannot hold
BITS: dict[str, int] = {
    **{name: 8 * held.itemsize for name, held in STORAGE.items()},
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8,
}  # fmt: skip


def widened_dtype(dtype: str) -> np.dtype[Any]:
    """Type that `widen` returns for a stored type: float64 for float64, float32 for all others.

    Examples
    --------
    >>> widened_dtype("bfloat16")
    dtype('float32')
    """
    return np.dtype(np.float64 if dtype == "float64" else np.float32)


def widen(stored: NDArray[Any], dtype: str, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Values of a stored floating point array, exact, of the same shape.

    Parameters
    ----------
    stored : ndarray
        The bytes of the tensor as `STORAGE[dtype]`: bfloat16 as uint16, 8-bit floats as uint8.
    dtype : str
        One of `FLOATS`.
    out : ndarray of float32 or float64, optional
        Where to write; without it float32 and float64 are returned as they are, not copied.

    Returns
    -------
    ndarray
        `out`, or an array of `widened_dtype(dtype)`.

    Examples
    --------
    >>> widen(np.array([0x3F80, 0xC000], np.uint16), "bfloat16").tolist()
    [1.0, -2.0]
    >>> widen(np.array([0x38, 0x7E], np.uint8), "float8_e4m3fn").tolist()
    [1.0, 448.0]
    """
    if out is None:
        if dtype in {"float64", "float32"}:
            return stored
        out = np.empty(stored.shape, np.float32)
    if dtype in _FLOAT8:
        # mode="clip" writes straight into out; the default mode would go through a buffer
        np.take(_float8_values(dtype).astype(out.dtype), stored, out=out, mode="clip")
        return out
    if dtype == "bfloat16":
        if out.dtype == np.float32:
            np.left_shift(stored, np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)
            return out
        stored = widen(stored, "bfloat16")
    # a signalling NaN is legal in a file; it is reported where the numbers are used
    with np.errstate(invalid="ignore", over="ignore"):
        np.copyto(out, stored, casting="same_kind")
    return out


def without_signals(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers with every NaN a quiet one: NumPy warns of a signalling one wherever it is used.

    Examples
    --------
    >>> without_signals(np.array([0x7F800001, 0x3F800000], np.uint32).view(np.float32)).tolist()
    [nan, 1.0]
    """
    nan = np.isnan(values)
    return np.where(nan, values.dtype.type(np.nan), values) if nan.any() else values


@functools.cache
def _float8_values(dtype: str) -> NDArray[np.float32]:
    exponent_bits, mantissa_bits, bias, finite, unsigned_zero = _FLOAT8[dtype]
    code = np.arange(256)
    exponent = (code >> mantissa_bits) & (2**exponent_bits - 1)
    fraction = (code & (2**mantissa_bits - 1)) / 2**mantissa_bits
    magnitude = np.where(
        exponent == 0,
        np.ldexp(fraction, 1 - bias),  # subnormal
        np.ldexp(1 + fraction, exponent - bias),
    )
    values = np.where(code >= 128, -magnitude, magnitude)
    if unsigned_zero:
        values[128] = np.nan  # the code of -0 is the only NaN
    elif finite:
        values[[127, 255]] = np.nan  # all ones is NaN and there is no infinity
    else:
        top = exponent == 2**exponent_bits - 1
        values[top] = np.where(fraction[top] == 0, np.copysign(np.inf, values[top]), np.nan)
    table: NDArray[np.float32] = values.astype(np.float32)
    table.flags.writeable = False
    return table
