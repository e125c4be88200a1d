"""Chance levels: two independent Haar-random spans of dimensions `i` and `j` in R^d.

Conventions: ``1 <= i, j <= d``, ``p = min(i, j)``, ``q = max(i, j)``; `cos2` are squared cosines of principal
angles, descending. Where ``i + j > d`` any two spans share at least ``i + j - d`` directions, and the other
angles are those between their complements, of dimensions ``d - j`` and ``d - i``. It is enough that one of
the two spans is Haar-random.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ValueRangeError
from subspace.geometry import lapack
from subspace.geometry.phi_law import small_space_quantile
from subspace.geometry.random_projection import projection_mean_sd
from subspace.geometry.significance import P_FLOOR, holm, largest_root_p, shared_dimension_p
from subspace.geometry.span_dimensions import free_dimensions, require_dimensions
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = [
    "P_FLOOR",
    "holm",
    "largest_root_p",
    "phi_mean",
    "phi_quantile",
    "phi_sd",
    "phi_z",
    "projection_mean_sd",
    "sample_cos2",
    "shared_dimension_p",
]

_BATCH = 1 << 20  # numbers in one batch of sampled matrices: 8 MB


def phi_mean(i: int, j: int, d: int) -> float:
    """Mean of phi(i, j) over random spans, ``max(i, j) / d``, exact; in (0, 1].

    Parameters
    ----------
    i, j, d : int
        Dimensions of the spans and of the space.

    Raises
    ------
    ValueRangeError
        If `i` or `j` is not in 1..d.

    Examples
    --------
    >>> phi_mean(8, 64, 256)
    0.25
    """
    require_dimensions(i, j, d)
    return max(i, j) / d


def phi_sd(i: int, j: int, d: int) -> float:
    """Standard deviation of phi(i, j) over random spans, exact; 0 where one span is the whole space.

    Parameters
    ----------
    i, j, d : int
        Dimensions of the spans and of the space.

    Raises
    ------
    ValueRangeError
        If `i` or `j` is not in 1..d.

    Examples
    --------
    >>> round(phi_sd(1, 1, 2) ** 2, 12)
    0.125
    """
    require_dimensions(i, j, d)
    if max(i, j) == d:
        return 0.0
    variance = 2 * i * j * (d - i) * (d - j) / (d**2 * (d - 1) * (d + 2))
    return math.sqrt(variance) / min(i, j)


def phi_z(phi: float, i: int, j: int, d: int) -> float:
    """Distance of `phi` from its mean over random spans, in standard deviations; NaN where phi cannot vary.

    Parameters
    ----------
    phi : float
        A similarity phi(i, j), in [0, 1].
    i, j, d : int
        Dimensions of the spans and of the space.

    Raises
    ------
    ValueRangeError
        If `i` or `j` is not in 1..d.

    Examples
    --------
    >>> phi_z(0.25, 8, 64, 256)
    0.0
    """
    sd = phi_sd(i, j, d)
    return (phi - phi_mean(i, j, d)) / sd if sd > 0 else math.nan


def phi_quantile(q: Any, i: int, j: int, d: int) -> Any:
    """Quantile of phi(i, j) over random spans at probability `q`, a float or an array of the shape of `q`.

    Parameters
    ----------
    q : float or array_like
        In [0, 1].
    i, j, d : int
        Dimensions of the spans and of the space.

    Raises
    ------
    ValueRangeError
        If `i` or `j` is not in 1..d, or `q` is not in [0, 1].

    Notes
    -----
    With p free directions (``min(i, j)`` less those that any two spans share): exact for p = 1, where phi is
    Beta(j/2, (d-j)/2), and for p = 2; by the exact law worked out numerically for p = 3 to 8 in up to 256
    dimensions, in seconds at most (`phi_law`). Otherwise a Beta of the exact mean and variance, whose
    1, 5, 50, 95 and 99 % quantiles are right to 1 %. Needs SciPy.

    Examples
    --------
    >>> float(round(phi_quantile(0.5, 1, 1, 2), 12))
    0.5
    """
    from scipy.special import betaincinv

    require_dimensions(i, j, d)
    if not ((np.asarray(q) >= 0) & (np.asarray(q) <= 1)).all():
        raise ValueRangeError(f"Probability outside [0, 1]: {shown(q)}; give 0.95 for 95 %")
    forced, i_free, j_free = free_dimensions(i, j, d)
    p, prob = min(i_free, j_free), np.asarray(q, dtype=np.float64)
    if p == 0:
        return np.ones_like(prob)[()]
    a, b = _beta_parameters(i_free, j_free, d)
    if p == 2 or (2 < p <= 8 and d <= 256):
        within = min(1.0, 1.2 * float(betaincinv(a, b, 1 - 1e-12)))
        phi = small_space_quantile(prob, p, max(i_free, j_free), d, within)
    else:
        phi = betaincinv(a, b, prob)
    return ((forced + p * phi) / min(i, j))[()]


def _beta_parameters(i: int, j: int, d: int) -> tuple[float, float]:
    if min(i, j) == 1:
        return max(i, j) / 2, (d - max(i, j)) / 2
    mean, sd = phi_mean(i, j, d), phi_sd(i, j, d)
    size = mean * (1 - mean) / sd**2 - 1
    return mean * size, (1 - mean) * size


def sample_cos2(i: int, j: int, d: int, *, n: int, rng: np.random.Generator) -> Floats:
    """`n` draws of all squared principal cosines of random spans, shape (n, min(i, j)), descending, in [0, 1].

    Parameters
    ----------
    i, j, d : int
        Dimensions of the spans and of the space.
    n : int
        Number of draws.
    rng : numpy.random.Generator

    Raises
    ------
    ValueRangeError
        If `i` or `j` is not in 1..d.

    Notes
    -----
    They are the eigenvalues of ``W1 (W1 + W2)^-1`` with Wishart matrices of `q` and ``d - q`` degrees of
    freedom in `p` dimensions, drawn by their Bartlett factors: O(p^3) a draw, nothing of length `d`.

    References
    ----------
    Muirhead 1982, Aspects of Multivariate Statistical Theory, theorems 3.2.14 and 3.3.1.

    Examples
    --------
    >>> float(sample_cos2(2, 3, 4, n=1, rng=np.random.default_rng(0))[0, 0])  # 2 + 3 > 4: one is forced
    1.0
    """
    require_dimensions(i, j, d)
    forced, i_free, j_free = free_dimensions(i, j, d)
    p, q = min(i_free, j_free), max(i_free, j_free)
    cos2 = np.ones((n, min(i, j)))
    step = max(1, _BATCH // max(1, p * p))
    for start in range(0, n if p else 0, step):
        stop = min(n, start + step)
        cos2[start:stop, forced:] = _jacobi(p, q, d, stop - start, rng)
    return cos2


def _jacobi(p: int, q: int, d: int, n: int, rng: np.random.Generator) -> Floats:
    T1, T2 = _bartlett(p, q, n, rng), _bartlett(p, d - q, n, rng)
    L = lapack.cholesky(T1 @ np.swapaxes(T1, 1, 2) + T2 @ np.swapaxes(T2, 1, 2))
    if L is None:  # has probability zero
        raise ValueRangeError(f"A sum of two Wishart matrices is not positive definite: p={p}; draw again")
    # the singular values of L^-1 T1 are the cosines: no subtraction, so small ones keep their digits
    return np.minimum(lapack.singular_values(lapack.inverse(L) @ T1) ** 2, 1.0)


def _bartlett(p: int, freedom: int, n: int, rng: np.random.Generator) -> Floats:
    """Lower triangles `T` with ``T @ T.T`` Wishart of `freedom` degrees of freedom, shape (n, p, p)."""
    T = np.tril(rng.standard_normal((n, p, p)), -1)
    T[:, np.arange(p), np.arange(p)] = np.sqrt(rng.chisquare(freedom - np.arange(p), size=(n, p)))
    return T
