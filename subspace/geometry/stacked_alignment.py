"""Whether the rows of many A's agree number by number, for all pairs, from block sums of one product.

With Q the turn of a member (`Stacked.turns`), the products of the orthonormalised rows of two A's are
``C = Q.T @ G @ Q'``. The statistic of `row_alignment` needs of C its trace, its sum of squares, which Q does not
change, and the squares of its row and column sums, which are products with one vector a member.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry.pair_blocks import block_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.stacked_spans import Spans, Stacked

__all__ = ["alignment_z", "largest_z"]


def alignment_z(
    G: NDArray[Any], energy: Floats, first: tuple[Stacked, slice], second: tuple[Stacked, slice]
) -> Floats:
    """Statistic z of `row_alignment` of some members of two stacks, (n, m); NaN where there is nothing to compare.

    Parameters
    ----------
    G : products of the rows of their sides "a"
    energy : (n, m), sum of squares of each block
    """
    (X, W, Y, r), (X2, W2, Y2, r2) = (_of(*members) for members in (first, second))
    columns = min(W.shape[1], W2.shape[1])
    trace = block_sums(G * (W[:, :columns] @ W2[:, :columns].T), X, X2)
    total = (Y @ Y2.T).astype(np.float64)
    n = np.maximum.outer(r, r2).astype(np.float64)
    sums = _squared(X, Y2) + _squared(X2, Y).T
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = energy - sums / n + (total / n) ** 2  # of C doubly centred
        z = (trace - total / n) / np.sqrt(squares / (n - 1))
    rounding = (16 * float(np.finfo(G.dtype).eps) * n) ** 2
    known = (np.minimum.outer(r, r2) > 0) & (n > 1) & (squares > rounding)
    most = largest_z(r, r2)
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


def _of(members: Stacked, part: slice) -> tuple[Spans, NDArray[Any], NDArray[Any], NDArray[np.intp]]:
    a = members.spans("a")
    begin, end, _ = part.indices(len(members))
    rows = slice(a.starts[begin], a.starts[end])
    return a.part(part), members.turns[rows], members.sums[part], members.r[part]


def _squared(spans: Spans, vectors: NDArray[Any]) -> Floats:
    """Squared length of every vector inside every span, (n, m)."""
    products = (spans.X @ vectors.T).astype(np.float64) ** 2
    return np.stack([products[band].sum(axis=0) for band in spans.bands()])
