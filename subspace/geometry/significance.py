"""How many directions two spans share: the largest-root test of canonical correlations, in sequence.

Against two independent Haar-random spans (conventions of `chance`), whose squared principal cosines are
distributed exactly like squared sample canonical correlations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.largest_root import expected_above
from subspace.geometry.span_dimensions import free_dimensions, require_dimensions
from subspace.geometry.tails import beta_tail
from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.geometry.lapack import Floats

__all__ = ["P_FLOOR", "holm", "largest_root_p", "shared_dimension_p"]

P_FLOOR = 1e-300
"""Stands for every smaller p-value: none is exactly 0."""


def largest_root_p(cos2: float, i: int, j: int, d: int, *, sin2: float | None = None) -> float:
    """Probability that the largest squared principal cosine of two random spans exceeds `cos2`; `P_FLOOR` at least.

    Parameters
    ----------
    cos2 : float
        In [0, 1]; rounding beyond, up to 1e-6, is ignored.
    i, j, d : int
        Dimensions of the spans and of the space.
    sin2 : float, optional
        ``1 - cos2``, where it is known to more digits: `cos2` rounds to 1 below an angle of 1e-8.

    Returns
    -------
    float
        1 where ``i + j > d``, since such spans always share a direction; NaN where one span is the whole
        space, since there is nothing to test.

    Raises
    ------
    ValueRangeError
        If `cos2` is not in [0, 1], `sin2` is not ``1 - cos2``, or `i` or `j` is not in 1..d.

    Notes
    -----
    Exact for ``min(i, j) = 1`` (a Beta) and for ``i + j = d - 1``. Otherwise the expected number of squared cosines
    above `cos2`, at most 1. That is an upper bound for any dimensions, and a close one, since two cosines are seldom
    large together: above the exact probability by less than 5 % at 0.5, 0.4 % at 0.1, 0.02 % at 0.01, and ever
    less further out.

    References
    ----------
    Forrester 2010, Log-Gases and Random Matrices, section 6.4. Chiani 2016, J. Multivariate Anal. 143:467, for the
    exact law.

    Examples
    --------
    >>> round(largest_root_p(0.5, 1, 1, 2), 12), largest_root_p(1.0, 2, 2, 8)
    (0.5, 1e-300)
    """
    require_dimensions(i, j, d)
    rest = 1 - cos2 if sin2 is None else sin2
    if not (-1e-6 <= cos2 <= 1 + 1e-6 and abs(cos2 + rest - 1) <= 1e-6):
        raise ValueRangeError(_not_a_cosine(cos2, sin2))
    if max(i, j) == d:
        return math.nan
    if i + j > d or cos2 <= 0:
        return 1.0
    if rest <= 0:
        return P_FLOOR
    return max(P_FLOOR, min(1.0, _tail(min(float(cos2), 1.0), float(rest), min(i, j), max(i, j), d)))


def _not_a_cosine(cos2: float, sin2: float | None) -> str:
    if sin2 is None:
        return f"Squared cosine outside [0, 1]: {cos2}; give cos(theta)**2"
    return f"Not the squared cosine and sine of an angle: {cos2} and {sin2}; give cos(theta)**2 and sin(theta)**2"


def _tail(cos2: float, sin2: float, p: int, q: int, d: int) -> float:
    if p == 1:
        return beta_tail(cos2, q / 2, (d - q) / 2, rest=sin2)
    if p + q == d - 1:
        # of the Jacobi density only powers of the roots remain, and roots below c are roots below 1 scaled by c
        return -math.expm1(p * q / 2 * (math.log1p(-sin2) if sin2 < 0.5 else math.log(cos2)))
    return expected_above(cos2, sin2, p, q, d)


def shared_dimension_p(theta: Any, i: int, j: int, d: int) -> Floats:
    """p-value of each further shared direction, shape (p,), not decreasing over the tested directions.

    Parameters
    ----------
    theta : array_like, shape (min(i, j),)
        All principal angles between the spans, radians in [0, pi/2], ascending.
    i, j, d : int
        Dimensions of the spans and of the space.

    Returns
    -------
    ndarray
        The shared dimension at level 0.01 is ``np.count_nonzero(p <= 0.01)``. None is below `P_FLOOR`. The first
        ``i + j - d`` directions, where that is positive, are shared by any two spans: their p-value is 1 and they are
        never counted. All NaN where one span is the whole space.

    Raises
    ------
    ShapeError
        If there are not ``min(i, j)`` angles.
    ValueRangeError
        If an angle lies outside [0, pi/2], or `i` or `j` is not in 1..d.

    Notes
    -----
    It rejects isotropic spans, no more: of two adapters that share nothing but the inputs of their modules (r = 8,
    d = 128, rows moved by 120 % along three inputs) a nominal 5 % test rejects 5 % for isotropic inputs, 44 % for a
    k^-1 spectrum, 50 % with a mean of 30 % of the energy, 92 % with one of 70 %, 96 % for k^-2; see
    benchmarks/calibration.csv.
    Step k tests the next smallest angle against random spans of dimensions ``i - k``, ``j - k`` in
    R^(d-k), from k = 1 less the forced directions too. That is exact if the first k directions are shared
    exactly, and the usual approximation of canonical correlation analysis if they are nearly so: after one of
    cosine 0.8 to 0.95 the size of the next step at (4, 5, 64) was 4.4-4.8 % at 5 % and 0.6-0.9 % at 1 %.

    Examples
    --------
    >>> shared_dimension_p([0.0, np.pi / 2], 2, 2, 8)
    array([1.e-300, 1.e+000])
    """
    require_dimensions(i, j, d)
    theta = np.sort(np.asarray(theta, dtype=np.float64))
    if theta.shape != (min(i, j),):
        raise ShapeError(
            f"Wrong number of principal angles: shape {theta.shape} for i={i}, j={j}; give min(i, j)"
        )
    if not ((theta >= 0) & (theta <= np.pi / 2)).all():
        raise ValueRangeError(f"Principal angles outside [0, pi/2]: {shown(theta)}; give them in radians")
    if max(i, j) == d:
        return np.full(theta.shape, np.nan)
    forced, i, j = free_dimensions(i, j, d)
    p = np.ones(len(theta))
    largest = 0.0
    for k, angle in enumerate(theta[forced:].tolist()):
        # spans that share k directions beyond the forced ones are random in the complement of all of those
        space = d - forced - k if k else d
        step = largest_root_p(math.cos(angle) ** 2, i - k, j - k, space, sin2=math.sin(angle) ** 2)
        largest = max(largest, step)
        if largest == 1:  # and so are all that follow
            break
        p[forced + k] = largest
    return p


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
