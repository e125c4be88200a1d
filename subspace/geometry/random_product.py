"""Singular values of a product of random factors: what ``B @ A`` of this size has where nothing was learned."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.frobenius import frobenius

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["LEVEL", "largest_of_matrix", "largest_of_product", "largest_with_factor", "mean_of_product"]

LEVEL = 0.05
_DRAWS = ((64, 199), (128, 39))  # (largest rank, draws): a test at 5 % is exact with 19, 39, 59, ... draws
_FEWEST = 19
_CELLS = 2**22  # of the draws that are held at once
_TRACY_WIDOM = 0.9793  # 95 % quantile of the largest eigenvalue, for real matrices


def largest_of_product(d_out: int, r: int, d_in: int) -> float:
    """What the largest singular value of a product of random factors exceeds in 5 % of draws, for factors of norm 1.

    Parameters
    ----------
    d_out, r, d_in : int
        B is (d_out, r) and A is (r, d_in), independent, with entries that are independent and normal.

    Notes
    -----
    By simulation with a fixed seed, once for each shape: 199 draws up to r = 64, 39 up to 128 and 19 above, so that the
    chance of 5 % is exact over the draws. With ``B = Q_B R_B`` and ``A.T = Q_A R_A`` the values are those of the r x r
    core ``R_B @ R_A.T``, whose triangles are drawn directly (Bartlett): a draw costs O(r^3), whatever d is.

    References
    ----------
    Bartlett 1933, Proc. R. Soc. Edinburgh 53:260. Barnard 1963, J. R. Stat. Soc. B 25:294 (Monte Carlo tests).

    Examples
    --------
    >>> round(largest_of_product(50, 1, 70), 12)  # two vectors of length 1
    1.0
    """
    return _quantile(_simulated(d_out, r, d_in)[:, 0])


def mean_of_product(d_out: int, r: int, d_in: int) -> Floats:
    """Mean singular values of such a product, descending, shape (min(d_out, r, d_in),); parameters as above.

    Examples
    --------
    >>> mean_of_product(50, 1, 70).round(12)
    array([1.])
    """
    mean: Floats = _simulated(d_out, r, d_in).mean(axis=0)
    return mean


def largest_with_factor(A: Any, d_out: int) -> float:
    """The same where only B is random, and A (r, d_in) is as it is: for a B of norm 1.

    Examples
    --------
    >>> round(largest_with_factor([[0.0, 3.0]], 50), 12)
    3.0
    """
    R_A = lapack.qr(lapack.as_float64(A).T)[1]
    r = R_A.shape[1]
    rng = np.random.default_rng(0)
    found = [
        float(_values(_triangles(rng, 1, d_out, r), R_A)[0, 0]) for _ in range(39 if r <= 256 else _FEWEST)
    ]
    return _quantile(np.array(found))


def largest_of_matrix(m: int, n: int) -> float:
    """What the largest singular value of a random (m, n) matrix of norm 1 exceeds in 5 % of draws.

    Notes
    -----
    From the Tracy-Widom law, with the centre and the spread for finite matrices.

    References
    ----------
    Johnstone 2001, Ann. Statist. 29:295, theorem 1.1. Ma 2012, Bernoulli 18:322 (the centre at m - 1/2, n - 1/2).

    Examples
    --------
    >>> round(largest_of_matrix(400, 100), 3)  # (sqrt(400) + sqrt(100)) / sqrt(400 * 100), and a little
    0.151
    """
    roots = math.sqrt(m - 0.5), math.sqrt(n - 0.5)
    centre = sum(roots)
    spread = centre * (1 / roots[0] + 1 / roots[1]) ** (1 / 3)
    return min(1.0, math.sqrt((centre**2 + _TRACY_WIDOM * spread) / (m * n)))


@lru_cache(maxsize=256)
def _simulated(d_out: int, r: int, d_in: int) -> Floats:
    """Singular values of the draws, shape (draws, min(d_out, r, d_in))."""
    draws = next((draws for most, draws in _DRAWS if r <= most), _FEWEST)
    rng = np.random.default_rng(0)
    block = max(1, _CELLS // (r * r))
    blocks = [min(block, draws - begin) for begin in range(0, draws, block)]
    pairs = ((_triangles(rng, n, d_out, r), _triangles(rng, n, d_in, r)) for n in blocks)
    return np.concatenate([_values(R_B, R_A) for R_B, R_A in pairs])


def _values(R_B: Floats, R_A: Floats) -> Floats:
    return lapack.singular_values(R_B @ np.swapaxes(R_A, -1, -2))


def _triangles(rng: np.random.Generator, draws: int, d: int, r: int) -> Floats:
    """Triangles R of ``X = Q R`` for normal X (d, r) of Frobenius norm 1, shape (draws, min(d, r), r)."""
    p = min(d, r)
    R = np.triu(rng.standard_normal((draws, p, r)))
    diagonal = np.arange(p)
    R[:, diagonal, diagonal] = np.sqrt(rng.chisquare(d - diagonal, (draws, p)))
    norms = np.array([frobenius(one) for one in R])
    unit: Floats = R / norms[:, None, None]
    return unit


def _quantile(largest: Floats) -> float:
    """The value that 5 % of the draws and one more are at or above: a Monte Carlo test at 5 % rejects beyond it."""
    beyond = round(LEVEL * (len(largest) + 1))
    return float(np.sort(largest)[-beyond])
