"""How much of delta_W is left when it is added to W and the sum is rounded to the type that W is stored in.

What is left is ``D = round(W + delta_W) - W``; `merging` says how it is added and rounded. An entry of delta_W below
half the distance of neighbouring numbers at W's entry leaves it as it was: bfloat16 has 8 significant bits, so that
nothing below W's own entry times 2**-9 counts at all. Entries above are rounded up or down, so that many entries can
vanish while the norm hardly falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry.merging import Chunk, Merge, Product
from subspace.geometry.stored_types import ChangedByChance
from subspace.geometry.topk import Leading, leading

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Merge", "Product", "Visibility", "left_of", "visibility"]

_PIECE = 1 << 15  # numbers that are widened to float64 at once
_TOL, _PASSES = 1e-5, 20  # of the directions of what is left, whose rounding has a flat spectrum


@dataclass(frozen=True)
class Visibility:
    """What is left of delta_W, in numbers that add up over matrices.

    Attributes
    ----------
    entries : int
        Number of entries of W.
    changed : int
        How many of them are stored as another number.
    changed_isotropic : float
        How many would change on average for a delta_W of isotropic random entries of the same norm.
    infinite : int
        How many became infinite, since the type has no number as large.
    delta_squares, left_squares : float
        ``||delta_W||_F^2`` and ``||D||_F^2``.
    inner : float
        ``<D, delta_W>``.
    """

    entries: int
    changed: int
    changed_isotropic: float
    infinite: int
    delta_squares: float
    left_squares: float
    inner: float

    @property
    def norm_left(self) -> float:
        """``||D|| / ||delta_W||``; NaN where either does not exist."""
        return math.sqrt(self.left_squares / self.delta_squares) if self._exists(1) else math.nan

    @property
    def cosine(self) -> float:
        """Cosine of D and delta_W; NaN where nothing is left."""
        if not self._exists(self.left_squares):
            return math.nan
        return min(1.0, max(-1.0, self.inner / math.sqrt(self.left_squares) / math.sqrt(self.delta_squares)))

    def _exists(self, left: float) -> bool:
        return not self.infinite and self.delta_squares > 0 and left > 0

    def __add__(self, other: Visibility) -> Visibility:
        return Visibility(
            *(mine + theirs for mine, theirs in zip(_values(self), _values(other), strict=True))
        )


def _values(found: Visibility) -> tuple[Any, ...]:
    return tuple(vars(found).values())


def visibility(merge: Merge) -> Visibility:
    """What is left of delta_W in one pass over W.

    Raises
    ------
    ValueRangeError
        If a number of W or of delta_W is not finite.

    Notes
    -----
    Costs about ten passes over W in cache, no more than one over the file; three chunks are in memory. The sums are in
    float64. `changed_isotropic` takes the entries for independent Gaussian ones of variance ``||delta_W||^2 / (m n)``,
    which differs from a random direction of the m * n entries by a share of ``1 / (m n)``.

    Examples
    --------
    Of two equal changes of 1/256 one is half the distance of bfloat16's neighbours of 1 and rounds to even; the other
    is exact next to 1/2.

    >>> W, delta_W = np.array([[1.0, 0.5]]), np.full((1, 2), 2.0**-8)
    >>> found = visibility(Merge(W, delta_W, "bfloat16"))
    >>> found.changed, round(found.norm_left, 4), round(found.cosine, 4)
    (1, 0.7071, 0.7071)
    """
    total, chance = _Sums(), ChangedByChance(merge.stored)
    for start, stop in merge.chunks():
        chunk = merge.at(start, stop)
        chance.add(chunk.W, chunk.codes, merge.before)
        total.add(chunk)
    entries = merge.shape[0] * merge.shape[1]
    deviation = math.sqrt(total.delta / entries) if entries else 0.0
    return Visibility(
        entries,
        total.changed,
        chance.expected(deviation),
        total.infinite,
        total.delta,
        total.left,
        total.inner,
    )


@dataclass
class _Sums:
    changed: int = 0
    infinite: int = 0
    delta: float = 0.0
    left: float = 0.0
    inner: float = 0.0
    _pieces: list[Floats] = field(default_factory=lambda: [np.empty(_PIECE), np.empty(_PIECE)])

    def add(self, chunk: Chunk) -> None:
        self.changed += int(np.count_nonzero(chunk.codes != chunk.merged_codes))
        self.infinite += int(np.count_nonzero(np.isinf(chunk.merged)))
        before, after, delta_W = chunk.W.ravel(), chunk.merged.ravel(), chunk.delta_W.ravel()
        with np.errstate(invalid="ignore", over="ignore"):  # of infinite numbers, which are counted
            for start in range(0, len(before), _PIECE):
                part = slice(start, start + _PIECE)
                self._add(before[part], after[part], delta_W[part])

    def _add(self, before: Any, after: Any, delta_W: Any) -> None:
        left, delta = (each[: len(before)] for each in self._pieces)
        np.subtract(after, before, out=left, dtype=np.float64)
        np.copyto(delta, delta_W)
        self.delta += float(delta @ delta)
        self.left += float(left @ left)
        self.inner += float(left @ delta)


def left_of(merge: Merge, k: int) -> Leading:
    """The leading `k` singular triplets of D, by one Krylov iteration over rows that are computed as they are read.

    Notes
    -----
    Where little of delta_W is left, D is rounding in single entries, whose spectrum is flat: its leading directions are
    then determined by little, and `error` is large after the 20 passes that are allowed.
    """
    return leading(merge, k, tol=_TOL, max_passes=_PASSES)
