"""Rank correlation of two quantities over a few runs, its p-value by permutation, and what is left given a third."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.errors import ShapeError, ValueRangeError

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["RankCorrelation", "partial_spearman", "spearman"]

_EXACT = 5040  # permutations of 7
_ROUNDING = 1e-9


class RankCorrelation(NamedTuple):
    """A rank correlation with its two-sided p-value.

    Attributes
    ----------
    rho : float
        In [-1, 1]; NaN where one of the quantities is the same in all runs.
    p : float
        Share of the permutations, the identity among them, whose ``|rho|`` is as large; NaN with `rho`.
    n : int
        Number of runs.
    """

    rho: float
    p: float
    n: int


def spearman(x: Any, y: Any, *, draws: int = 9999, seed: int = 0) -> RankCorrelation:
    """Spearman's rank correlation of two quantities, ties with their mean rank, and its p-value by permutation.

    Parameters
    ----------
    x, y : array_like, shape (n,)
        At least three values each, finite.
    draws : int
        Random permutations that stand for all where there are more than 5040 (n > 7).
    seed : int
        Of the draws.

    Raises
    ------
    ShapeError
        If the shapes differ or are not (n,).
    ValueRangeError
        If there are fewer than three values, or one is not finite.

    Notes
    -----
    The p-value is exact where runs are exchangeable under independence. Runs of a grid, of one rank at several learning
    rates for example, are not quite: a third quantity that moves both gives a small p as well.

    References
    ----------
    Spearman 1904, Am. J. Psychol. 15:72. Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39 (identity counts).

    Examples
    --------
    >>> found = spearman([1, 2, 3, 4], [1, 4, 9, 16])
    >>> round(found.rho, 12), round(24 * found.p, 12)
    (1.0, 2.0)
    """
    a, b = (_centred(_ranks(each)) for each in _pair(x, y))
    return _permuted(a, b, draws, seed)


def partial_spearman(x: Any, y: Any, given: Any, *, draws: int = 9999, seed: int = 0) -> RankCorrelation:
    """Spearman's rank correlation of `x` and `y` once the ranks of a third quantity are regressed out of both.

    Parameters and errors as `spearman`; `given` has the shape of the others.

    Notes
    -----
    Its p-value permutes the residuals, which is approximate for few runs.

    Examples
    --------
    >>> x, y, z = [1, 2, 3, 5, 4], [2, 1, 3, 5, 4], [1, 2, 3, 4, 5]
    >>> spearman(x, y).rho > partial_spearman(x, y, z).rho
    True
    """
    x, y = _pair(x, y)
    _, z = _pair(x, given)
    third = _centred(_ranks(z))
    a, b = (_residual(_centred(_ranks(each)), third) for each in (x, y))
    return _permuted(a, b, draws, seed)


def _pair(x: Any, y: Any) -> tuple[Floats, Floats]:
    a, b = (np.asarray(each, dtype=np.float64) for each in (x, y))
    if a.ndim != 1 or a.shape != b.shape:
        raise ShapeError(
            f"Not two rows of as many numbers: shapes {a.shape} and {b.shape}; give one each per run"
        )
    if len(a) < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueRangeError(
            f"Nothing to correlate: {len(a)} runs, or a number that is not finite; give three finite numbers or more"
        )
    return a, b


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, ties with the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[place]
    return ranks


def _centred(ranks: Floats) -> Floats:
    centred: Floats = ranks - ranks.mean()
    return centred


def _residual(ranks: Floats, third: Floats) -> Floats:
    square = float(third @ third)
    left: Floats = ranks - (ranks @ third / square) * third if square else ranks
    return left


def _permuted(a: Floats, b: Floats, draws: int, seed: int) -> RankCorrelation:
    n, scale = len(a), float(np.linalg.norm(a) * np.linalg.norm(b))
    if scale <= _ROUNDING * n:
        return RankCorrelation(math.nan, math.nan, n)
    if math.factorial(n) <= _EXACT:
        orders = np.array(list(permutations(range(n))))
    else:
        drawn = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (draws, 1)), axis=1)
        orders = np.vstack([np.arange(n), drawn])
    found = np.abs(b[orders] @ a) / scale
    rho = float(a @ b) / scale
    return RankCorrelation(rho, float(np.mean(found >= abs(rho) - _ROUNDING)), n)
