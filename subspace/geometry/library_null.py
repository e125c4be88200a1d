"""Is a pair of adapters more alike than the pairs of its library are? By its rank among the pairs that share one of it.

Pairs that share an adapter are dependent, so the N (N - 1) / 2 similarities of a library are no sample of a null. What
is uniform, if the adapters are exchangeable, is the rank of s(i, j) among the similarities s(i, m) of one adapter i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack
from subspace.text import counted

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["FEWEST", "LibraryNull", "library_null", "similarities"]

FEWEST = 39  # adapters: the least p-value is then 1 / 38, a little above a fortieth
_ROUNDING = 1e-9  # a similarity so much smaller, relative to the largest, counts as equal


class LibraryNull(NamedTuple):
    """p-values of the pairs of a library, each for a pair that was chosen before anything was measured.

    Attributes
    ----------
    p : ndarray, shape (N, N), or None
        NaN on the diagonal, for pairs without a similarity, and for those with an adapter that has fewer than 38 of
        them. None where the library is too small.
    floor : float or None
        The least p-value that a pair of this library can have: 1 / (N - 1) where every pair has a similarity.
    reason : str
        Why there is none; empty where there is.
    """

    p: Floats | None
    floor: float | None
    reason: str = ""


def library_null(S: Any) -> LibraryNull:
    """Probability that a pair of adapters is as similar as it is, if both are no different from all of their library.

    Parameters
    ----------
    S : array_like, shape (N, N)
        Symmetric; larger is more alike: phi at full rank, or the cosine of delta_W. NaN where two adapters cannot be
        compared. The diagonal is not read.

    Returns
    -------
    LibraryNull
        ``p[i, j]`` is the larger of two shares: of the adapters m for which s(i, m) is at least s(i, j), and of those
        for which s(m, j) is; j, or i, is one of them.

    Raises
    ------
    ShapeError
        If `S` is not square.

    Notes
    -----
    If the adapters are exchangeable, each share is uniform on the multiples of 1 / (N - 1), whatever the similarities
    that share an adapter have in common, so p is of at most its nominal size (simulated at N = 39: 5 % is 0.2 % to
    1.6 %). The larger of the two is taken since an adapter that is like all others (trained longer, say) is the nearest
    neighbour of many: only a pair in which each is near *for the other* has a small p. Adapters that belong together
    make p larger: within a family of c it reaches (c - 1) / (N - 1).

    p is for one pair that was named before. It cannot be corrected for the search through all pairs: the shares of a
    row are the multiples of 1 / (N - 1) whatever the data, so that of all pairs at most the share p is at or below p.
    The corrections of Holm, of Benjamini and Hochberg, and of Benjamini and Yekutieli therefore always give 1, and
    up to about N / 4 pairs of a library without any structure are at the floor (pairs that are each other's nearest
    neighbour). Whether *any* pair of a library is related is a question for the size of its cosine, not for ranks.

    Examples
    --------
    >>> library_null(np.eye(12)).reason
    '12 adapters are too few for p-values among themselves: 39 are needed, so that the least is 1 / 38'
    """
    S = similarities(S)
    N = len(S)
    if N < FEWEST:
        return LibraryNull(
            None,
            None,
            f"{counted(N, 'adapter')} are too few for p-values among themselves: {FEWEST} are needed, "
            f"so that the least is 1 / {FEWEST - 1}",
        )
    share, others = _shares(S)
    p = np.fmax(share, share.T)
    few = others < FEWEST - 1
    p[np.isnan(S) | few[:, None] | few] = np.nan
    if np.isnan(p).all():
        return LibraryNull(
            None, None, f"No pair can be compared with {FEWEST - 2} others of each of its adapters"
        )
    return LibraryNull(p, float(1 / others[~few].max()))


def similarities(S: Any) -> Floats:
    """A copy of a symmetric matrix of similarities in float64, NaN on its diagonal.

    Raises
    ------
    ShapeError
        If it is not square.
    """
    square: Floats = np.array(lapack.as_float64(S, name="the matrix of similarities"))
    if square.ndim != 2 or square.shape[0] != square.shape[1]:
        raise ShapeError(
            f"Not a square matrix of similarities: shape {square.shape}; "
            "give one row and column for each adapter"
        )
    np.fill_diagonal(square, np.nan)
    return square


def _shares(S: Floats) -> tuple[Floats, Floats]:
    """Per entry the share of its row's numbers that are at least it, and how many numbers each row has."""
    slack = _ROUNDING * np.nanmax(np.abs(S), initial=0.0)
    share = np.full(S.shape, np.nan)
    others = np.count_nonzero(~np.isnan(S), axis=1).astype(float)
    for line, row in zip(share, S, strict=True):
        known = ~np.isnan(row)
        ascending = np.sort(row[known])
        below = np.searchsorted(ascending, row[known] - slack)
        line[known] = 1 - below / max(len(ascending), 1)
    return share, others
