"""Do the entries of W that change in bfloat16 lie where the leading part of W is large?

The principal mask is a set of coordinates: those where ``abs(U_k @ diag(S_k) @ V_k.T)`` is largest. The principal
*subspace* is another thing (`geometry.alignment`): a change can avoid the one and lie in the other.

References
----------
Zhu et al., arXiv 2511.08567: principal mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.change import Change
    from subspace.geometry.singular_basis import Basis

__all__ = ["MaskOverlap", "as_bfloat16", "changed_in_bfloat16", "mask_overlap"]

_CHUNK = 1 << 18  # numbers of one chunk of rows


class MaskOverlap(NamedTuple):
    """Of the entries that change in bfloat16, how many are in the principal mask.

    Attributes
    ----------
    overlap : their share, in [0, 1]; NaN where no entry changes
    gaussian : the mean for a change of independent normal entries of the same root mean square; NaN without a change
    changed : share of all entries that change
    """

    overlap: float
    gaussian: float
    changed: float


def mask_overlap(W: Any, base: Basis, k: int, change: Change, *, share: float) -> MaskOverlap:
    """How much of what changes in bfloat16 lies in the principal mask of W.

    Parameters
    ----------
    W : RowReader or ndarray, shape (m, n)
    base : Basis
        Singular triplets of `W`, at least `k`.
    k : int
        Rank of the part whose largest entries are the mask.
    change : Change, shape (m, n)
    share : float
        Share of all entries that the mask has, in (0, 1); by chance the overlap has this mean.

    Notes
    -----
    An entry changes if `W` and the float64 sum, both rounded to bfloat16, differ. The mask has exactly the share: of
    entries that tie at its threshold each counts in part. Three passes over the rows of the leading part, one over `W`.

    `gaussian` is the fairer chance: small entries of W have a finer grid in bfloat16 and change more easily, and they
    tend to lie outside the mask, so that any small change, even a random one, overlaps with it less than `share`.

    Examples
    --------
    >>> from subspace.geometry.change import DenseChange
    >>> from subspace.geometry.singular_basis import exact_basis
    >>> W = np.outer([3.0, 1.0], [2.0, 1.0])
    >>> found = mask_overlap(W, exact_basis(W), 1, DenseChange(np.array([[1.0, 0.0], [0.0, 1.0]])), share=0.25)
    >>> found.overlap, found.changed  # the largest entry is the first, one of two that change
    (0.5, 0.5)
    """
    read = W.rows if hasattr(W, "rows") else None
    part = _LeadingPart(base, k)
    mask = _Mask.of(part, share)
    rms = change.norm / math.sqrt(change.shape[0] * change.shape[1])
    counts = _Counts()
    for start, stop in part.chunks():
        rows = W[start:stop] if read is None else read(start, stop)
        rows, weights = np.asarray(rows, dtype=np.float64), mask.weights(part.rows(start, stop))
        counts.add(weights, changed_in_bfloat16(rows, change.rows(start, stop)), _chances(rows, rms))
    return counts.result()


class _LeadingPart:
    """Absolute entries of ``U_k @ diag(S_k) @ V_k.T`` in float32, some rows at a time."""

    def __init__(self, base: Basis, k: int) -> None:
        self._left = (base.U[:, :k] * (base.S[:k] / base.S[0])).astype(np.float32)
        self._right = np.ascontiguousarray(base.V[:, :k].T.astype(np.float32))
        self.size = len(self._left) * self._right.shape[1]

    def chunks(self) -> Iterator[tuple[int, int]]:
        step = max(1, _CHUNK // self._right.shape[1])
        for start in range(0, len(self._left), step):
            yield start, min(start + step, len(self._left))

    def rows(self, start: int, stop: int) -> NDArray[np.uint32]:
        """Their bit patterns, which have the order of the numbers."""
        return np.asarray(np.abs(self._left[start:stop] @ self._right).view(np.uint32))


@dataclass(frozen=True)
class _Mask:
    """Entries above a threshold, and a part of those that are equal to it."""

    threshold: int
    of_ties: float

    @classmethod
    def of(cls, part: _LeadingPart, share: float) -> _Mask:
        """The mask of a share of all entries, by two counts: of the upper halves of the patterns, then of the lower."""
        wanted = share * part.size
        high, above = _first_with(_counts(part, lambda bits: bits >> 16), wanted, 0.0)
        lower = _counts(part, lambda bits: bits[bits >> 16 == high] & 0xFFFF)
        low, above = _first_with(lower, wanted, above)
        return cls(high << 16 | low, float(min(1.0, (wanted - above) / lower[low])))

    def weights(self, bits: NDArray[np.uint32]) -> NDArray[np.float64]:
        """How far each entry belongs to the mask, from 0 to 1."""
        return np.asarray((bits > self.threshold) + self.of_ties * (bits == self.threshold))


def _counts(part: _LeadingPart, digits: Any) -> NDArray[np.int64]:
    counts = np.zeros(1 << 16, dtype=np.int64)
    for start, stop in part.chunks():
        counts += np.bincount(digits(part.rows(start, stop)).reshape(-1).astype(np.int64), minlength=1 << 16)
    return counts


def _first_with(counts: NDArray[np.int64], wanted: float, above: float) -> tuple[int, float]:
    """The largest digit down to which there are as many entries as wanted, and how many are above it."""
    from_top = above + np.cumsum(counts[::-1])
    place = min(int(np.searchsorted(from_top, wanted)), len(counts) - 1)
    digit = len(counts) - 1 - place
    return digit, float(from_top[place] - counts[digit])


class _Counts:
    """Sums over chunks of rows."""

    def __init__(self) -> None:
        self.size = 0
        self.changed = self.in_mask = self.expected = self.expected_in_mask = 0.0

    def add(self, weights: Any, changed: Any, chances: Any) -> None:
        self.size += weights.size
        self.changed += float(np.count_nonzero(changed))
        self.in_mask += float(weights[changed].sum())
        self.expected += float(chances.sum())
        self.expected_in_mask += float(np.vdot(weights, chances))

    def result(self) -> MaskOverlap:
        return MaskOverlap(
            self.in_mask / self.changed if self.changed else math.nan,
            self.expected_in_mask / self.expected if self.expected else math.nan,
            self.changed / self.size,
        )


def as_bfloat16(M: Any) -> NDArray[np.float32]:
    """Numbers rounded to bfloat16, to the nearest and to even, in float32.

    Examples
    --------
    >>> as_bfloat16([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8])
    array([1.      , 1.      , 1.015625], dtype=float32)
    """
    with np.errstate(over="ignore"):
        bits = np.array(M, dtype=np.float32).view(np.uint32)  # a copy, changed below
    bits += 0x7FFF + (bits >> 16 & 1)
    bits &= 0xFFFF0000
    return bits.view(np.float32)


def changed_in_bfloat16(W: Any, delta_W: Any) -> NDArray[np.bool_]:
    """Which entries of the sum differ from those of `W` once both are rounded to bfloat16.

    Examples
    --------
    >>> changed_in_bfloat16(np.array([1.0, 1.0, 0.0]), np.array([0.003, 0.005, 1e-9]))
    array([False,  True,  True])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result: NDArray[np.bool_] = as_bfloat16(W) != as_bfloat16(W + delta_W)
    return result


def _chances(W: NDArray[np.float64], rms: float) -> NDArray[np.float64]:
    """Probability that a normal number of this root mean square changes each entry in bfloat16."""
    from scipy.special import ndtr

    if rms == 0:
        return np.zeros(W.shape)
    rounded = as_bfloat16(np.abs(W))
    bits = rounded.view(np.uint32)
    up = np.minimum(bits + 0x10000, 0x7F800000).view(np.float32).astype(np.float64)
    down = (np.maximum(bits, 0x10000) - 0x10000).view(np.float32).astype(np.float64)
    down = np.where(bits == 0, -up, down)
    middle = rounded.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        to_up, to_down = (up + middle) / 2 - np.abs(W), np.abs(W) - (down + middle) / 2
        result: NDArray[np.float64] = ndtr(-to_up / rms) + ndtr(-to_down / rms)
    return np.where(np.isinf(middle), 0.0, result)  # beyond bfloat16 nothing brings it back
