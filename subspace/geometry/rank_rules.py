"""How many singular values of a spectrum stand apart from the rest: a knee, and the optimal hard threshold.

Conventions: `S` are singular values, descending, above rounding. A rank is a whole number from 0 to ``len(S)``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ValueRangeError

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["hard_threshold", "knee"]

_DEPTH = 0.25  # of the whole drop: the spectrum of a random product bends less, see `knee`
_NODES = 4096  # of the midpoint rule for the Marchenko-Pastur law


def knee(S: Any) -> int | None:
    """Number of singular values before the knee of the scree plot, or None where it has none.

    Parameters
    ----------
    S : array_like, shape (p,)
        Positive, descending.

    Returns
    -------
    int or None
        The knee is the value farthest below the chord from the first to the last, of ``log S`` over the index; those
        before it are counted. None for fewer than three values, and where none is a quarter of the whole drop below.

    Notes
    -----
    On a logarithmic axis, because trained spectra fall over orders of magnitude: on a plain one the chord begins at
    sigma_1, and the knee is behind the first large drop, however many directions stand above the rest. A quarter: the
    values of a product of random factors bend by less than 0.1 at r = 64, 0.2 at r = 8 and 0.3 at r = 4 in 95 % of
    draws.

    References
    ----------
    Satopää et al. 2011, Finding a "kneedle" in a haystack, ICDCS Workshops (the point farthest from the chord).

    Examples
    --------
    >>> knee([9.0, 8.0, 7.0, 0.1, 0.1, 0.1, 0.1]), knee([4.0, 2.0, 1.0, 0.5])
    (3, None)
    """
    S = np.asarray(S, dtype=np.float64)
    if len(S) < 3 or S[-1] >= S[0]:
        return None
    height = np.log(S / S[-1]) / math.log(S[0] / S[-1])
    below = np.linspace(1.0, 0.0, len(S)) - height
    at = int(np.argmax(below))
    return at if below[at] >= _DEPTH else None


def hard_threshold(S: Any, shape: tuple[int, int]) -> float:
    """Singular values above this are signal by the rule of Gavish and Donoho for noise of unknown strength.

    Parameters
    ----------
    S : array_like, shape (p,)
        All singular values of the matrix, at least one; their median is what the strength of the noise is read off.
    shape : tuple of int
        Of the matrix whose noise is white: ``min(shape)`` is p.

    Notes
    -----
    ``omega(beta) * median(S)`` with ``beta = min(shape) / max(shape)``. It has the least mean squared error, in the
    limit of large matrices, for a signal of *low* rank in white noise. So it cannot keep half of the values or more.

    References
    ----------
    Gavish & Donoho 2014, The optimal hard threshold for singular values is 4/sqrt(3), IEEE Trans. Inf. Theory 60:5040,
    equations 11 and 5.

    Examples
    --------
    >>> round(hard_threshold([1.0, 1.0, 1.0], (3, 3)), 3)
    2.858
    """
    S = np.asarray(S, dtype=np.float64)
    small, large = sorted(shape)
    if not len(S) or small < 1:
        raise ValueRangeError("No singular values to threshold; give at least one")
    return _omega(small / large) * float(np.median(S))


@lru_cache(maxsize=256)
def _omega(beta: float) -> float:
    root = beta + 1 + math.sqrt(beta * beta + 14 * beta + 1)
    return math.sqrt((2 * (beta + 1) + 8 * beta / root) / _marchenko_pastur_median(beta))


def _marchenko_pastur_median(beta: float) -> float:
    """Median of the eigenvalues of ``X X^T / n`` for white noise X of shape (m, n), ``beta = m / n``.

    With ``t = 1 + beta + 2 sqrt(beta) cos(a)`` the density in `a` is smooth: ``2/pi sin(a)^2 / t``.
    """
    a: Floats = (np.arange(_NODES) + 0.5) * math.pi / _NODES
    t = 1 + beta + 2 * math.sqrt(beta) * np.cos(a)
    mass = np.cumsum(np.sin(a) ** 2 / t)
    # of the upper part of the law, up to the right end of each cell
    middle = float(np.interp(0.5, mass / mass[-1], a + 0.5 * math.pi / _NODES))
    return 1 + beta + 2 * math.sqrt(beta) * math.cos(middle)
