"""How many squared principal cosines of two random spans are expected above a value: the tail of the largest one.

The squared cosines are the p roots of a real Jacobi ensemble, of density ``prod w1(x_k) prod |x_k - x_l|`` with
``w1(x) = x^((a-1)/2) (1-x)^((b-1)/2)``, ``a = q - p``, ``b = d - q - p``. Its one-point density has a closed form in
the polynomials P_j that are orthonormal for ``w2 = w1^2 x (1-x)``, because the derivative of ``w1 x (1-x) P_j`` is
``w1 (c_j P_(j+1) - c_(j-1) P_(j-1))``: the skew inner products of the P_j are the inverse of a tridiagonal matrix.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from subspace.geometry.tails import log_beta, mills_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["expected_above"]

_REPULSION = -16.0  # logarithm of a count below which pairs of roots change less than 1e-9 of it


class _Step(NamedTuple):
    """Constants of the step from P_(j-1) to P_j: ``x P_j = root_next P_(j+1) + alpha P_j + root P_(j-1)``."""

    j: int
    alpha: float
    change: float  # alpha_j - alpha_(j-1)
    root: float  # sqrt(beta_j)
    root_next: float
    ratio: float  # sqrt(beta_(j-1) / beta_j)
    c_before: float  # |c_(j-1)|
    c: float


class _Ensemble(NamedTuple):
    """What does not depend on where the tail begins."""

    half: tuple[float, float]  # exponents of x and 1 - x in w1 x (1-x)
    whole: tuple[float, float]  # and in w2 x (1-x)
    steps: tuple[_Step, ...]  # from 0 to p - 1
    log_leading: float
    log_second: float


@lru_cache(maxsize=512)
def _ensemble(p: int, q: int, d: int) -> _Ensemble:
    a, b = q - p, d - q - p
    half, whole = ((a + 1) / 2, (b + 1) / 2), (a + 1.0, b + 1.0)
    steps = _steps(p, a, b)
    integrals = [1.0, 0.0]  # of w1 P_j over [0, 1], in units of the first
    for step in steps[1:]:
        integrals.append(step.c_before / step.c * integrals[-2])
    log_half, log_whole = log_beta(*half), log_beta(*whole)
    if p % 2:
        leading = -log_half - math.log(integrals[p - 1])
    else:
        leading = log_half - log_whole + math.log(steps[p - 2].c * integrals[p - 2] / 2)
    return _Ensemble(half, whole, tuple(steps), leading, -log_whole)


def _steps(p: int, a: int, b: int) -> list[_Step]:
    total = a + b
    alpha = [(a + 1) / (total + 2)]
    beta = [0.0]
    for k in range(1, p + 1):
        s = 2 * k + total
        alpha.append((2 * k * (k + total + 1) + total * (a + 1)) / (s * (s + 2)))
        beta.append(k * (k + a) * (k + b) * (k + total) / (s * s * (s + 1) * (s - 1)))
    root = [math.sqrt(x) for x in beta]
    c = [0.0] + [(j + (total + 2) / 2) * root[j + 1] for j in range(p)]
    return [
        _Step(
            j,
            alpha[j],
            alpha[j] - alpha[j - 1],
            root[j],
            root[j + 1],
            root[j - 1] / root[j] if j else 0.0,
            c[j],
            c[j + 1],
        )
        for j in range(p)
    ]


def expected_above(cos2: float, sin2: float, p: int, q: int, d: int) -> float:
    """Expected number of the squared principal cosines of two random spans that exceed `cos2`.

    Infinite below the largest zero of P_(p-1), where the number is 0.97 or more and no bound of a probability.

    Parameters
    ----------
    cos2, sin2 : float
        Both positive; they add to 1, and each keeps its own digits.
    p, q, d : int
        Dimensions of the spans and of the space, ``2 <= p <= q``, ``p + q <= d``.

    Notes
    -----
    O(p): 30 us for p = 8, 0.2 ms for p = 64. With ``t_j`` the integral of ``w1 P_j`` from `cos2` to 1 and ``s_j`` that
    from 0 to 1, the number is ``t_(p-1) / s_(p-1)`` for an odd p and ``c_(p-2) s_(p-2) t_(p-1) / 2`` for an even one,
    plus terms of the second order in the weight, which matter only where it is not small. Beyond the
    largest zero every term of the recurrences is positive; they run in ratios of neighbours, which do not overflow.
    """
    ensemble = _ensemble(p, q, d)
    r = _ratios(cos2, ensemble.steps)
    if r[-1] <= 0:
        return math.inf
    log_cos2 = math.log1p(-sin2) if sin2 < 0.5 else math.log(cos2)
    log_weight = ensemble.half[0] * log_cos2 + ensemble.half[1] * math.log(sin2)
    log_before = sum(map(math.log, r[1:-1]))  # of P_(p-2) / P_0
    t = _integrals(r, mills_ratio(sin2, *ensemble.half), ensemble.steps)
    leading = ensemble.log_leading + log_weight + log_before + math.log(t[-1] * r[-1])
    if leading < _REPULSION:
        return math.exp(leading)
    unit = math.exp(2 * (log_weight + log_before) + ensemble.log_second)
    return math.exp(leading) + unit * _second_order(cos2, mills_ratio(sin2, *ensemble.whole), r, t, ensemble)


def _ratios(x: float, steps: Sequence[_Step]) -> list[float]:
    """``P_j / P_(j-1)`` at x, from 1 to p - 1, after a 0 for j = 0; cut at the first that is not positive."""
    r, below = [0.0], 0.0
    for step in steps[:-1]:
        r.append((x - step.alpha - below) / step.root_next)
        if r[-1] <= 0:
            break
        below = step.root_next / r[-1]
    return r


def _integrals(r: Sequence[float], first: float, steps: Sequence[_Step]) -> list[float]:
    """Integrals of ``w1 P_j`` from x to 1 over ``w1 x (1-x) P_j`` at x, for j from 0 to p - 1."""
    t = [first, 1 / (steps[0].c * r[1])]
    for step in steps[1:-1]:
        t.append((step.c_before * t[-2] / r[step.j] + 1) / (step.c * r[step.j + 1]))
    return t


def _second_order(
    x: float, first: float, r: Sequence[float], t: Sequence[float], ensemble: _Ensemble
) -> float:
    """Terms of the second order in the weight, over ``w2 x (1-x) P_(p-2)^2`` at x."""
    steps, total = ensemble.steps, sum(ensemble.whole) - 2
    squares = mass = first  # integrals from x to 1 of w2 P_j^2, and their sum up to j
    product = steps[0].c * t[0] * t[1] * r[1] - mass  # c_j times the integral of w1 P_(j+1) t_j
    kernel = skipped = 0.0  # sum of P_k^2 for k < j; root_j times the integral of w2 P_(j+1) P_(j-1)
    for step in steps[1:-1]:
        j, shrink = step.j, 1 / (r[step.j] * r[step.j])
        kernel = (kernel + 1) * shrink
        before, skipped = (
            skipped,
            ((x - step.alpha) * kernel / step.root + 1 / r[j]) / (4 * j + 2 + 2 * total),
        )
        neighbours = step.change * kernel / (step.root * (2 * j + total))
        mass = mass * shrink + (skipped + neighbours - step.ratio * before * shrink) / step.root
        squares = squares * shrink + mass
        product = step.c * t[j] * t[j + 1] * r[j + 1] - product * shrink - mass
    return squares - product
