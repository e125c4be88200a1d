"""Floating point numbers rounded to a type that files store: the inverse of `widening`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.widening import STORAGE
from subspace.errors import ValueRangeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SMALLEST_NORMAL", "WRITTEN", "narrow"]

# types that loaders of adapters compute with; every 8-bit float is exact in float16
WRITTEN = ("float64", "float32", "float16", "bfloat16")
# below these, a type rounds to multiples of one number, and the last digits are lost one by one
SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}


def narrow(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Numbers rounded to the nearest of a type, as a file stores them, of the same shape; bfloat16 as uint16.

    Parameters
    ----------
    values : ndarray of float32 or float64
    dtype : str
        One of `WRITTEN`.

    Raises
    ------
    ValueRangeError
        If a number is not finite, or too large for the type.

    Notes
    -----
    A number that the type can hold is stored exactly; float64 to bfloat16 is rounded twice, by way of float32.

    Examples
    --------
    >>> narrow(np.array([1.0, -2.0]), "bfloat16").tolist() == [0x3F80, 0xC000]
    True
    >>> narrow(np.array([70000.0]), "float16")
    Traceback (most recent call last):
    subspace.errors.ValueRangeError: Number too large for float16: 70000; write bfloat16 or float32
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = _bfloat16(values) if dtype == "bfloat16" else values.astype(STORAGE[dtype], copy=False)
    finite = (rounded & 0x7F80) != 0x7F80 if dtype == "bfloat16" else np.isfinite(rounded)
    if not finite.all():
        raise _beyond(float(values[~finite][0]), dtype)
    return rounded


def _bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Upper halves of the float32 numbers, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # with half a unit added (one less where the last bit kept is 0) the upper half is the nearest
    return ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def _beyond(value: float, dtype: str) -> ValueRangeError:
    if not np.isfinite(value):
        return ValueRangeError(f"Not a finite number: {value} cannot be written; train the adapter again")
    wider = "bfloat16 or float32" if dtype == "float16" else "a wider type"
    return ValueRangeError(f"Number too large for {dtype}: {value:g}; write {wider}")
