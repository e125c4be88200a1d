"""How much of a matrix random frames see: the norm of ``U.T @ W @ V`` for Haar-random U and V."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ValueRangeError

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["projection_mean_sd"]

_CONSTANT = 1e-14  # a relative variance below this is rounding
_NARROW = (
    1e-3  # squared coefficient of variation below which every law of this mean and variance gives the same sd
)
_LOG_T, _STEP = np.arange(-60.0, 60.0, 0.4), 0.4  # of the trapezoidal rule, exact to 1e-12 on this grid


def projection_mean_sd(
    r: int, norm_W: float, fourth_moment: float, d_out: int, d_in: int, *, leading: Any = ()
) -> tuple[float, float]:
    """Root mean square and standard deviation of ``||U.T @ W @ V||_F`` for random frames U, V of r columns.

    Parameters
    ----------
    r : int
        Columns of `U` (d_out, r) and `V` (d_in, r), both Haar-random.
    norm_W : float
        Frobenius norm of `W`.
    fourth_moment : float
        ``tr((W.T W)^2)``, the sum of the fourth powers of the singular values of `W`.
    leading : array_like, optional
        The largest singular values of `W`, descending, as many as are known.

    Returns
    -------
    rms : float
        ``r * norm_W / sqrt(d_out * d_in)``, exact.
    sd : float
        Exact for W of rank one. Otherwise within 3 % if `leading` has the values that stand out (5 % in fewer than
        8 dimensions), and up to 9 % too large if it does not.

    Raises
    ------
    ValueRangeError
        If `r` exceeds a dimension or is below 1.

    Notes
    -----
    With P, Q Haar projectors the square is ``tr(P W Q W.T)``. For a Haar projector of rank r in R^n,
    ``E[P_ab P_cd] = alpha d_ab d_cd + beta/2 (d_ac d_bd + d_ad d_bc)``, applied to P and then to Q, gives its exact
    variance. The square is taken to be the product of two independent Beta variables, what V leaves of ``||W||_F^2``
    and what U leaves of that, of their exact means and variances. How that differs from the law of those singular
    values (`leading`, and equal ones for the rest) is worked out in the limit of large dimensions.

    Examples
    --------
    >>> projection_mean_sd(2, 3.0, 40.5, 2, 2)
    (3.0, 0.0)
    """
    if not 1 <= r <= min(d_out, d_in):
        raise ValueRangeError(
            f"r outside 1..min(d_out, d_in): r={r} for a matrix of shape ({d_out}, {d_in}); lower r"
        )
    rms = r * norm_W / math.sqrt(d_out * d_in)
    if norm_W == 0:
        return 0.0, 0.0
    smaller = min(d_out, d_in)
    # of W / norm_W; an estimate can be out of reach of any singular values
    fourth = (
        min(max((fourth_moment**0.25 / norm_W) ** 4, 1 / smaller), 1.0)
        if fourth_moment < math.inf
        else math.nan
    )
    spread = _spread_of_betas(r, fourth, d_out, d_in)
    if spread > _NARROW:
        S = np.asarray(leading, dtype=np.float64) / norm_W
        spread *= _shape_factor(r, *_squares(S, fourth, smaller))
    return rms, rms * math.sqrt(spread)


def _spread_of_betas(r: int, fourth: float, d_out: int, d_in: int) -> float:
    """Variance of the projection over its mean square, for a product of two Beta variables; ``||W||_F = 1``."""
    (alpha, beta), (alpha_Q, beta_Q) = _projector_moments(r, d_out), _projector_moments(r, d_in)
    squared_trace = alpha_Q + beta_Q * fourth  # E[tr(Q N)^2], N = W.T W
    trace_square = (alpha_Q + beta_Q / 2) * fourth + beta_Q / 2  # E[tr(Q N Q N)]
    square = alpha * squared_trace + beta * trace_square
    log_root = _log_root_of_beta(r / d_in, squared_trace) + _log_root_of_beta(
        r / d_out, square / squared_trace
    )
    return 0.0 - math.expm1(2 * log_root)  # 0, not -0, where nothing varies


def _projector_moments(r: int, n: int) -> tuple[float, float]:
    if n == 1:
        return 1.0, 0.0
    alpha = r * (r * (n + 1) - 2) / (n * (n - 1) * (n + 2))
    return alpha, 2 * r * (n - r) / (n * (n - 1) * (n + 2))


def _log_root_of_beta(mean: float, square: float) -> float:
    """Logarithm of ``E[sqrt(x)] / sqrt(E[x])`` for a Beta variable of this mean and mean square."""
    variance = square - mean**2
    if variance <= _CONSTANT * mean**2:
        return 0.0
    size = mean * (1 - mean) / variance - 1
    return _log_root(mean * size) - _log_root(size)


def _log_root(shape: float) -> float:
    """Logarithm of ``E[sqrt(x)] / sqrt(E[x])`` for a gamma variable, without cancellation."""
    if shape > 50:
        return -1 / (8 * shape) + 1 / (192 * shape**3)
    return math.lgamma(shape + 0.5) - math.lgamma(shape) - math.log(shape) / 2


def _squares(S: Floats, fourth: float, most: int) -> tuple[Floats, Floats]:
    """Squared singular values of W / ||W||_F, and how often each occurs: those known, and one value for the rest."""
    known = S**2
    rest, rest_fourth = 1 - known.sum(), fourth - (known**2).sum()
    if rest <= 1e-9 or len(S) >= most:
        return known, np.ones(len(S))
    lowest, highest = rest / (most - len(S)), known[-1] if len(S) else 1.0
    value = max(min(rest_fourth / rest, highest), lowest)
    return np.append(known, value), np.append(np.ones(len(S)), rest / value)


def _shape_factor(r: int, squares: Floats, times: Floats) -> float:
    """Variance of the projection over that of two gamma variables, in the limit of large dimensions.

    There V is Gaussian, and given V the square is a sum of chi-squared variables of `r` degrees of freedom each,
    weighted by the eigenvalues of ``V.T N V``: nearly a gamma variable, whose shape is their
    ``r trace^2 / (2 trace of the square)``.
    """
    fourth = float(times @ squares**2)
    t = np.exp(_LOG_T)
    shrunk = squares / (
        1 + 2 * np.multiply.outer(t, squares)
    )  # V weighted by exp(-t trace) is Gaussian still
    weight = np.exp(-r / 2 * (np.log1p(2 * np.multiply.outer(t, squares)) @ times))
    first, second = shrunk @ times, shrunk**2 @ times
    # E[trace^(1/2)], and E[trace^(-3/2) trace of the square], as integrals over t of what is weighted so
    root = _STEP / math.sqrt(math.pi) * float(np.sum(t**0.5 * weight * r * first))
    skewed = (
        2 * _STEP / math.sqrt(math.pi) * float(np.sum(t**1.5 * weight * r * ((r + 1) * second + first**2)))
    )
    log_root = math.log(root / math.sqrt(r)) + _log_root(r * root / (2 * skewed))
    mean_square = r * (r + 2 * fourth)
    by_gammas = _log_root(r / (2 * fourth)) + _log_root(mean_square / (2 * ((r + 1) * fourth + 1)))
    return math.expm1(2 * log_root) / math.expm1(2 * by_gammas)
