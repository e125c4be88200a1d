"""How many directions two spans share: the largest-root test of canonical correlations, in sequence.

Against two independent Haar-random spans (conventions of `chance`), whose squared principal cosines are
distributed exactly like squared sample canonical correlations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.span_dimensions import free_dimensions, require_dimensions
from subspace.geometry.tails import beta_tail, gamma_tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.geometry.lapack import Floats

__all__ = ["holm", "largest_root_p", "shared_dimension_p"]

# Tracy-Widom of order 1 as a shifted gamma variable: Chiani 2014, table 1
_SHAPE, _SCALE, _SHIFT = 46.446, 0.186054, 9.84801


def largest_root_p(cos2: float, i: int, j: int, d: int) -> float:
    """Probability that the largest squared principal cosine of two random spans exceeds `cos2`.

    Parameters
    ----------
    cos2 : float
        In [0, 1]; rounding beyond, up to 1e-6, is ignored.
    i, j, d : int
        Dimensions of the spans and of the space.

    Returns
    -------
    float
        1 where ``i + j > d``, since such spans always share a direction; NaN where one span is the whole
        space, since there is nothing to test.

    Raises
    ------
    ValueRangeError
        If `cos2` is not in [0, 1], or `i` or `j` not in 1..d.

    Notes
    -----
    Exact (a Beta) for ``min(i, j) = 1``. Otherwise the Tracy-Widom approximation on the logit scale; its true
    size at a nominal 5 % is 3.1-4.8 %, at 1 % 0.2-0.8 %, for (2, 2, 256) to (64, 64, 12288): conservative.
    Far below 1e-4 the number says "very small", not how small. Exact too for ``i + j = d - 1``; for ``i + j = d`` the
    law of the least singular value of a square Gaussian matrix, whose size at 5 % is 3.9-5.7 %, at 1 % 0.8-1.2 %, for
    (2, 2, 4) to (32, 32, 64).

    References
    ----------
    Johnstone 2008, Ann. Statist. 36:2638; 2009, Ann. Appl. Stat. 3:1616. Chiani 2014, J. Multivariate
    Anal. 129:69. Edelman 1988, SIAM J. Matrix Anal. Appl. 9:543, for ``i + j = d``.

    Examples
    --------
    >>> round(largest_root_p(0.5, 1, 1, 2), 12), largest_root_p(1.0, 2, 2, 8)
    (0.5, 0.0)
    """
    require_dimensions(i, j, d)
    if not -1e-6 <= cos2 <= 1 + 1e-6:
        raise ValueRangeError(f"Squared cosine outside [0, 1]: {cos2}; give cos(theta)**2")
    if max(i, j) == d:
        return math.nan
    if i + j > d or cos2 <= 0:
        return 1.0
    return _tail(min(float(cos2), 1.0), min(i, j), max(i, j), d)


def _tail(cos2: float, p: int, q: int, d: int) -> float:
    if cos2 == 1:
        return 0.0
    if p == 1:
        return beta_tail(cos2, q / 2, (d - q) / 2)
    if d - p - q <= 1:
        return _at_the_edge(cos2, p, q, d)
    # Johnstone's m = d - q, n = q, so that N = m + n - 1 = d - 1
    N = d - 1
    g, f = (2 * math.asin(math.sqrt((size - 0.5) / N)) for size in (p, q))
    mu = 2 * math.log(math.tan((g + f) / 2))
    sigma = (16 / N**2 / (math.sin(g + f) ** 2 * math.sin(g) * math.sin(f))) ** (1 / 3)
    x = (math.log(cos2) - math.log1p(-cos2) - mu) / sigma
    return gamma_tail((x + _SHIFT) / _SCALE, _SHAPE)


def _at_the_edge(cos2: float, p: int, q: int, d: int) -> float:
    """Spans that fill the space, or all but one dimension of it: no Tracy-Widom law, since a cosine can reach 1."""
    if p + q == d - 1:
        # of the Jacobi density only powers of the roots remain, and roots below c are roots below 1 scaled by c
        return -math.expm1(p * q / 2 * math.log(cos2))
    x = p * q * (1 - cos2)
    return -math.expm1(-x / 2 - math.sqrt(x))


def shared_dimension_p(cos2: Any, i: int, j: int, d: int) -> Floats:
    """p-value of each further shared direction, shape (p,), not decreasing over the tested directions.

    Parameters
    ----------
    cos2 : array_like, shape (min(i, j),)
        All squared principal cosines, descending.
    i, j, d : int
        Dimensions of the spans and of the space.

    Returns
    -------
    ndarray
        The shared dimension at level 0.01 is ``np.count_nonzero(p <= 0.01)``. The first ``i + j - d``
        directions, where that is positive, are shared by any two spans: their p-value is 1 and they are never
        counted. All NaN where one span is the whole space.

    Raises
    ------
    ShapeError
        If there are not ``min(i, j)`` squared cosines.
    ValueRangeError
        As `largest_root_p`.

    Notes
    -----
    Step k tests the next largest cosine against random spans of dimensions ``i - k``, ``j - k`` in
    R^(d-k), from k = 1 less the forced directions too. That is exact if the first k directions are shared
    exactly, and the usual approximation of canonical correlation analysis if they are nearly so.

    Examples
    --------
    >>> shared_dimension_p([1.0, 0.0], 2, 2, 8)
    array([0., 1.])
    """
    require_dimensions(i, j, d)
    cos2 = np.sort(np.asarray(cos2, dtype=np.float64))[::-1]
    if cos2.shape != (min(i, j),):
        raise ShapeError(
            f"Wrong number of squared cosines: shape {cos2.shape} for i={i}, j={j}; give min(i, j)"
        )
    if max(i, j) == d:
        return np.full(cos2.shape, np.nan)
    forced, i, j = free_dimensions(i, j, d)
    # spans that share k directions beyond the forced ones are random in the complement of all of those
    spaces = [d, *(d - forced - k for k in range(1, len(cos2) - forced))]
    steps = [
        largest_root_p(c, i - k, j - k, space)
        for k, (c, space) in enumerate(zip(cos2[forced:], spaces, strict=True))
    ]
    return np.concatenate([np.ones(forced), np.maximum.accumulate(steps)])


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple testing (Holm's step-down), in the order given, in [0, 1]; NaN stays NaN.

    Parameters
    ----------
    p : sequence of float
        In [0, 1]; NaN where there was no test, which does not count.

    Notes
    -----
    Rejecting where the adjusted value is at most a level keeps the probability of any false rejection below that
    level, whatever the dependence.

    References
    ----------
    Holm 1979, Scand. J. Statist. 6:65.

    Examples
    --------
    >>> holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    known = sorted((value, n) for n, value in enumerate(p) if not math.isnan(value))
    adjusted, largest = [math.nan] * len(p), 0.0
    for rank, (value, n) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - rank)))
        adjusted[n] = largest
    return adjusted
