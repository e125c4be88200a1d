"""The k largest entries of a matrix that is only read a few rows at a time: where the k-th lies, exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Threshold", "threshold"]

_BITS = 16  # of the upper half of a float32


class Threshold(NamedTuple):
    """The k-th largest magnitude, and how many entries of exactly that magnitude are among the k."""

    magnitude: np.float32
    ties: int


def threshold(chunks: Callable[[], Iterable[NDArray[np.float32]]], k: int) -> Threshold:
    """The k-th largest magnitude of all entries, exact in float32.

    Parameters
    ----------
    chunks : reads the magnitudes, none of them negative or NaN, in pieces of any shape; called twice
    k : at least 1 and at most the number of entries

    Notes
    -----
    The bits of a float32 that is not negative order it. The first pass counts the upper 16 bits of all entries, the
    second the lower 16 bits of those whose upper half is that of the k-th.

    Examples
    --------
    >>> rows = np.float32([[3.0, 1.0], [1.0, 2.0]])
    >>> threshold(lambda: rows, 3)
    Threshold(magnitude=np.float32(1.0), ties=1)
    """
    counts = np.zeros(1 << _BITS, dtype=np.int64)
    for chunk in chunks():
        counts += np.bincount(_bits(chunk) >> _BITS, minlength=1 << _BITS)
    upper, left = _nth(counts, k)
    counts[:] = 0
    for chunk in chunks():
        bits = _bits(chunk)
        lower = bits[bits >> _BITS == upper] & ((1 << _BITS) - 1)
        counts += np.bincount(lower, minlength=1 << _BITS)
    lower_half, ties = _nth(counts, left)
    found = np.array([(upper << _BITS) | lower_half], dtype=np.uint32).view(np.float32)[0]
    return Threshold(found, ties)


def _bits(chunk: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.ascontiguousarray(chunk).view(np.uint32).ravel().astype(np.int64)


def _nth(counts: NDArray[np.int64], k: int) -> tuple[int, int]:
    """The bucket of the k-th from the top, and which one of that bucket it is, from 1."""
    above = np.cumsum(counts[::-1])
    at = int(np.searchsorted(above, k))
    return len(counts) - 1 - at, k - (int(above[at - 1]) if at else 0)
