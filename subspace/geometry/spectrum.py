"""Number of directions of a matrix by its singular values, counted in five ways.

Conventions: `S` are singular values, descending, not negative. A zero or empty spectrum has numerical rank 0;
the other four are NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError, ValueRangeError
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["effective_rank", "energy_rank", "numerical_rank", "participation_ratio", "stable_rank"]


def numerical_rank(S: Any, *, longest: int | None = None) -> int:
    """Number of singular values above the rounding of float64, ``longest * eps * S[0]``; see also `geometry.rounding`.

    Parameters
    ----------
    S : array_like, shape (p,)
    longest : int, optional
        Larger dimension of the matrix; ``len(S)`` if not given.

    Raises
    ------
    ShapeError
        If `S` is not one-dimensional.
    ValueRangeError
        If a value is negative, not finite, or larger than the one before it.

    Examples
    --------
    >>> numerical_rank([1.0, 1e-3, 1e-17]), numerical_rank([0.0, 0.0])
    (2, 0)
    """
    S = _spectrum(S)
    size = len(S) if longest is None else longest
    return int(np.count_nonzero(size * np.finfo(np.float64).eps * S[:1] < S))


def stable_rank(S: Any) -> float:
    """Stable rank ``||.||_F^2 / ||.||_2^2``, from 1 to the rank; errors as `numerical_rank`.

    Parameters
    ----------
    S : array_like, shape (p,)

    Examples
    --------
    >>> stable_rank([2.0, 2.0]), stable_rank([2.0, 0.0])
    (2.0, 1.0)
    """
    S = _relative(S)
    return float(np.sum(S**2)) if S.size else math.nan


def effective_rank(S: Any) -> float:
    """Exponential of the entropy of ``S / sum(S)``, from 1 to the rank; errors as `numerical_rank`.

    Parameters
    ----------
    S : array_like, shape (p,)

    References
    ----------
    Roy & Vetterli 2007, The effective rank, EUSIPCO.

    Examples
    --------
    >>> round(effective_rank([2.0, 2.0, 0.0]), 12)
    2.0
    """
    S = _relative(S)
    if S.size == 0:
        return math.nan
    share = S[S > 0] / S.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def participation_ratio(S: Any) -> float:
    """Participation ratio ``(sum S^2)^2 / sum S^4``, from 1 to the rank; errors as `numerical_rank`.

    Parameters
    ----------
    S : array_like, shape (p,)

    Examples
    --------
    >>> participation_ratio([3.0, 3.0, 3.0])
    3.0
    """
    S = _relative(S)
    return float(np.sum(S**2) ** 2 / np.sum(S**4)) if S.size else math.nan


def energy_rank(S: Any, q: float) -> float:
    """Smallest `k` such that the first k squares hold at least a share `q` of their sum: a whole number, or NaN.

    Parameters
    ----------
    S : array_like, shape (p,)
    q : float
        In (0, 1].

    Raises
    ------
    ValueRangeError
        If `q` is not in (0, 1]; for `S` as `numerical_rank`.

    Examples
    --------
    >>> energy_rank([2.0, 1.0], 0.8), energy_rank([2.0, 1.0], 0.81)
    (1.0, 2.0)
    """
    if not 0 < q <= 1:
        raise ValueRangeError(f"Share of energy outside (0, 1]: {q}; give 0.9 for 90 %")
    S = _relative(S)
    if S.size == 0:
        return math.nan
    energy = np.cumsum(S**2)
    # a sum that misses the threshold only by rounding has reached it
    return float(np.argmax(energy >= q * energy[-1] * (1 - 1e-14)) + 1)


def _relative(spectrum: Any) -> Floats:
    """Singular values over the largest, so that squares stay in range; empty for a zero spectrum."""
    S = _spectrum(spectrum)
    if S.size == 0 or S[0] == 0:
        return S[:0]
    with np.errstate(under="ignore"):
        relative: Floats = S / S[0]
    return relative


def _spectrum(spectrum: Any) -> Floats:
    S: Floats = np.asarray(spectrum, dtype=np.float64)
    if S.ndim != 1:
        raise ShapeError(f"Singular values are not one-dimensional: shape {S.shape}; flatten them")
    if not (np.isfinite(S).all() and (S >= 0).all() and (np.diff(S) <= 0).all()):
        raise ValueRangeError(f"Singular values are not finite, >= 0 and descending: {shown(S)}; sort them")
    return S
