"""Whether the rows of many A's agree number by number, for all pairs, from block sums of one product.

With Q the turn of a member (`Stacked.turns`), the products of the orthonormalised rows of two A's are
``C = Q.T @ G @ Q'``. The statistic of `row_alignment` needs of C its trace, its sum of squares, which Q does not
change, and the squares of its row and column sums, which are products with one vector a member.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry import pair_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.stacked_spans import Spans, Stacked

__all__ = ["alignment_z", "largest_z"]

_FEW = 8


def alignment_z(
    G: NDArray[Any], energy: Floats, first: tuple[Stacked, slice], second: tuple[Stacked, slice]
) -> Floats:
    """Statistic z of `row_alignment` of some members of two stacks, (n, m); NaN where there is nothing to compare.

    Parameters
    ----------
    G : products of the rows of their sides "a"
    energy : (n, m), sum of squares of each block

    Notes
    -----
    Of few rows little may be left of the sum of squares once C is centred: their products are of float64 always.
    """
    rounding = 16 * float(np.finfo(G.dtype).eps)
    one, other = _Rows.of(*first), _Rows.of(*second)
    if max(one.r.max(initial=0), other.r.max(initial=0)) <= _FEW:
        one, other = one.wide(), other.wide()
        G = one.a.X @ other.a.X.T
        energy = pair_blocks.energy(G, one.a, other.a)
    columns = min(one.W.shape[1], other.W.shape[1])
    H = one.W[:, :columns].astype(G.dtype) @ other.W[:, :columns].astype(G.dtype).T
    trace = pair_blocks.dots(G, H, one.a, other.a)
    total = one.Y @ other.Y.T
    n = np.maximum.outer(one.r, other.r).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = _squared(one.a, other.Y) + _squared(other.a, one.Y).T
        squares = energy - sums / n + (total / n) ** 2  # of C doubly centred
        z = (trace - total / n) / np.sqrt(squares / (n - 1))
    known = (np.minimum.outer(one.r, other.r) > 0) & (n > 1) & (squares > (rounding * n) ** 2)
    most = largest_z(one.r, other.r)
    return np.where(known, np.clip(z, -most, most), np.nan)


def largest_z(r: NDArray[np.intp], r_second: NDArray[np.intp]) -> Floats:
    """The largest z that the ranks of all pairs can give, (n, m).

    Examples
    --------
    >>> largest_z(np.array([4]), np.array([4, 1]))
    array([[3.        , 1.73205081]])
    """
    least, most = np.minimum.outer(r, r_second), np.maximum(np.maximum.outer(r, r_second) - 1, 0)
    found: Floats = np.sqrt(np.minimum(least, most) * most)
    return found


class _Rows(NamedTuple):
    """Some members: their spans, their turns, the sums of their orthonormalised rows, and how many rows these are."""

    a: Spans
    W: Floats
    Y: Floats
    r: NDArray[np.intp]

    @classmethod
    def of(cls, members: Stacked, part: slice) -> _Rows:
        a = members.spans("a")
        begin, end, _ = part.indices(len(members))
        rows = slice(a.starts[begin], a.starts[end])
        return cls(a.part(part), members.turns[rows], members.sums[part], members.r[part])

    def wide(self) -> _Rows:
        return self._replace(a=replace(self.a, X=self.a.X.astype(np.float64)))


def _squared(spans: Spans, vectors: Floats) -> Floats:
    """Squared length of the part of every vector inside every span, (n, m)."""
    products = (spans.X @ vectors.astype(spans.X.dtype).T).astype(np.float64) ** 2
    found = np.zeros((len(spans.k), len(vectors)))
    for n, band in enumerate(spans.bands()):
        found[n] = products[band].sum(axis=0)
    return found
