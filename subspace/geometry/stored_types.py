"""Numbers rounded to a type that weights are stored in, in place, as torch and bitsandbytes round them.

bfloat16, float16 and float32 round to the nearest, ties to even; what is too large becomes infinite. int8 is LLM.int8's
vector-wise scheme: every output (a row of W) has one scale, its largest absolute value, of which the codes -127 to 127
are multiples of the 127th part; codes are rounded to the nearest, ties to even.

References
----------
IEEE 754-2019, section 4.3.1. Dettmers et al., LLM.int8(), arXiv 2208.07339, equations 4 and 5 (the scale of each row),
as bitsandbytes 0.50, functional.py, ``int8_vectorwise_quant``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["STORED", "ChangedByChance", "Grid", "Int8Grid", "grid"]

STORED = ("bfloat16", "float16", "float32", "int8")
_LEVELS = 127
_EXPONENT = {"bfloat16": 16, "float16": 0, "float32": 23}  # bits of a float32 that are no part of a key


class Grid(Protocol):
    """The numbers of a stored type."""

    def round(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Round rows in place; return what is stored of them, which differs exactly where another number is stored."""


class _FloatGrid:
    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def round(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Round in place; what is stored is the number itself."""
        if self._dtype == "bfloat16":
            _round_bfloat16(values)
        elif self._dtype == "float16":
            with np.errstate(over="ignore", under="ignore"):  # the caller counts what became infinite
                np.copyto(values, values.astype(np.float16))
        return values


class Int8Grid:
    """Codes from -127 to 127 times a 127th part of the largest absolute value of each output.

    Parameters
    ----------
    peaks : ndarray, shape (columns,), optional
        Largest absolute value of each column, where the outputs are the columns; by default they are the rows, and each
        row has its own.
    """

    def __init__(self, peaks: NDArray[Any] | None = None) -> None:
        self._peaks, self.by_row = peaks, peaks is None

    def peaks(self, values: NDArray[np.float32]) -> Floats:
        """Largest absolute value of each output, (rows, 1) or (1, columns)."""
        peaks = np.abs(values).max(axis=1, keepdims=True, initial=0.0) if self._peaks is None else self._peaks
        return np.atleast_2d(np.asarray(peaks, dtype=np.float64))

    def round(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Round in place; what is stored is the code, so that a new scale of an output alone is no change."""
        peaks = self.peaks(values)
        # the product is exact in float64, so that a tie is one
        codes = np.rint(np.multiply(values, _LEVELS, dtype=np.float64) / np.where(peaks > 0, peaks, 1.0))
        np.copyto(values, codes * (peaks / _LEVELS), casting="same_kind")
        return codes


def grid(dtype: str) -> Grid:
    """The numbers of a type in `STORED`; those of int8 with a scale per row.

    Examples
    --------
    >>> values = np.array([[1.0, 1.005, 1.01]], np.float32)
    >>> grid("bfloat16").round(values).tolist()
    [[1.0, 1.0078125, 1.0078125]]
    >>> grid("int8").round(np.array([[-254.0, 3.0, 1.0]], np.float32)).tolist()
    [[-127.0, 2.0, 0.0]]
    """
    return Int8Grid() if dtype == "int8" else _FloatGrid(dtype)


def _round_bfloat16(values: NDArray[np.float32]) -> None:
    bits = values.view(np.uint32)
    # with half a unit added (one less where the last bit kept is 0) the upper half is the nearest
    odd = bits >> 16
    odd &= 1
    odd += 0x7FFF
    bits += odd
    bits &= 0xFFFF0000


class ChangedByChance:
    """How many entries of W would be stored as another number if isotropic Gaussian entries were added.

    Collects how far the numbers of W are from where they would round to a neighbour; how large the entries are is known
    only afterwards.

    Notes
    -----
    Exact for bfloat16 and float16, where the half gaps to both neighbours are counted number by number. float32 goes by
    exponents, which ignores the smaller gap below a power of two, in one number of 2**23. In int8 the scale of an
    output changes with its largest number, by which a code c moves as if its own entry had c / 127 of that change too:
    the variance is that of both, which leaves out that another number can become the largest.
    """

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._counts = np.zeros(1 << (8 if dtype == "float32" else 15), dtype=np.int64)
        self._codes: list[
            tuple[Floats, NDArray[Any]]
        ] = []  # step and counts of the codes 0 to 126 of each output

    def add(self, values: NDArray[np.float32], codes: NDArray[Any], where: Grid) -> None:
        """Take in rows of W, which are rounded already, and what is stored of them."""
        if isinstance(where, Int8Grid):
            steps = where.peaks(values) / _LEVELS
            outputs = np.abs(codes if where.by_row else codes.T)
            self._codes.append((steps.ravel(), _counts(outputs)))
            return
        if self._dtype == "float16":
            keys = values.astype(np.float16).view(np.uint16) & 0x7FFF
        else:
            keys = (values.view(np.uint32) & 0x7FFFFFFF) >> _EXPONENT[self._dtype]
        self._counts += np.bincount(keys.ravel(), minlength=len(self._counts))

    def expected(self, deviation: float) -> float:
        """Expected number of entries that change, for Gaussian entries of this standard deviation."""
        if not 0 < deviation < math.inf:
            return 0.0
        shares = np.hypot(1.0, np.arange(_LEVELS) / _LEVELS)
        total = sum(
            float((counts * _beyond(steps[:, None] / 2 / shares, deviation)).sum()) * 2
            for steps, counts in self._codes
        )
        keys = np.flatnonzero(self._counts)
        if len(keys):
            below, above = _half_gaps(keys, self._dtype)
            both = _beyond(below, deviation) + _beyond(above, deviation)
            total += float(self._counts[keys] @ both)
        return total


def _counts(outputs: NDArray[Any]) -> NDArray[Any]:
    """How often each output has each absolute code below the largest, (outputs, 127): that one stays the largest."""
    keys = outputs.astype(np.intp) + (_LEVELS + 1) * np.arange(len(outputs))[:, None]
    counts = np.bincount(keys.ravel(), minlength=(_LEVELS + 1) * len(outputs))
    return counts.reshape(len(outputs), _LEVELS + 1)[:, :_LEVELS]


def _half_gaps(keys: NDArray[Any], dtype: str) -> tuple[Floats, Floats]:
    """Distance of stored numbers from where they would round down, and up, in absolute value."""
    if dtype == "float32":
        half = np.ldexp(1.0, np.maximum(keys, 1) - 127 - 24)
        return half, half
    mantissa, bias = (7, 127) if dtype == "bfloat16" else (10, 15)
    exponents, first = np.divmod(keys, 1 << mantissa)
    above = np.ldexp(1.0, np.maximum(exponents, 1) - bias - mantissa - 1)
    # below a power of two the numbers lie twice as dense, but for the smallest normal number
    below = np.where((first == 0) & (exponents > 1), above / 2, above)
    return below, above


def _beyond(distances: Floats, deviation: float) -> Floats:
    """Probability that a Gaussian number exceeds each distance."""
    from scipy.special import ndtr

    return np.asarray(ndtr(-distances / deviation))
