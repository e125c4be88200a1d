"""Quantiles of phi over random spans in spaces too small for a Beta of matched moments.

phi is the mean of the p roots of a real Jacobi ensemble, of density ``prod x_k^((a-1)/2) (1-x_k)^((b-1)/2)
prod |x_k - x_l|`` with ``a = q - p``, ``b = d - q - p``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry import lapack

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["small_space_quantile"]

_NODES, _FREQUENCIES = 256, 200
_NEGLIGIBLE = 1e-11  # of a Fourier coefficient
_SURE = 1e-5  # the Fourier sum is right to 1e-7 in probability; beyond this the ends of the law are powers
_HALVINGS = 50


def small_space_quantile(prob: Floats, p: int, q: int, d: int, within: float) -> Floats:
    """Quantiles of phi for ``2 <= p <= 8`` and ``p + q <= d``, of the shape of `prob`.

    Parameters
    ----------
    prob : ndarray
        In [0, 1].
    p, q, d : int
        Smaller and larger dimension of the spans, and that of the space.
    within : float
        A value that phi exceeds with a probability of at most 1e-12, or 1.

    Notes
    -----
    For p = 2, ``sqrt(x y)``, ``sqrt((1-x) (1-y))`` and what is left of 1 are Dirichlet(a + 1, b + 1, 1), so that
    phi is ``1/2 + G (R - 1/2)`` with R a Beta(a + 1, b + 1) and G an independent Beta((d - 2) / 2, 1): one integral.
    Otherwise by the Fourier series of the law, whose coefficients are Pfaffians (de Bruijn 1955). Right to 1e-6 in
    probability either way, and to 1 % in phi beyond the probabilities 1e-5 and 1 - 1e-5.
    """
    if p == 2:
        return np.where(prob < 1, _inverted(lambda y: _law_of_two(y, q, d), prob, 1.0), 1.0)
    series = _series(p, q, d, within)
    inner = _inverted(lambda y: _summed(y, *series), np.clip(prob, _SURE, 1 - _SURE), within)
    # the density vanishes like a power of the distance from either end
    low, high = np.minimum(prob / _SURE, 1), np.minimum((1 - prob) / _SURE, 1)
    return np.where(prob < 0.5, inner * low ** (2 / (p * q)), 1 - (1 - inner) * high ** (2 / (p * (d - q))))


def _inverted(law: Callable[[Floats], Floats], prob: Floats, top: float) -> Floats:
    low, high = np.zeros_like(prob), np.full_like(prob, top)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = law(middle) < prob
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def _law_of_two(y: Floats, q: int, d: int) -> Floats:
    """Probability that phi is at most `y`, for p = 2."""
    upper = y > 0.5  # 1 - phi has the same law with a and b in exchange
    a, b = np.where(upper, d - q - 2, q - 2), np.where(upper, q - 2, d - q - 2)
    tail = _below_half(np.minimum(y, 1 - y)[..., None], a[..., None], b[..., None], d)
    return np.where(upper, 1 - tail, tail)


def _below_half(y: Floats, a: Floats, b: Floats, d: int) -> Floats:
    from scipy.special import betainc

    # G = exp(-E / h) with an exponential E, and phi < y needs R < 1/2 - (1/2 - y) / G
    h = (d - 2) / 2
    with np.errstate(divide="ignore"):
        longest = np.minimum(-h * np.log(1 - 2 * y), 40.0)
    nodes, weights = _legendre(_NODES // 2)
    E = longest * (nodes + 1) / 2
    inside = np.clip(0.5 - (0.5 - y) * np.exp(E / h), 0, 1)
    tail: Floats = (longest / 2 * weights * np.exp(-E) * betainc(a + 1, b + 1, inside)).sum(axis=-1)
    return tail


@lru_cache(maxsize=2)
def _legendre(n: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return nodes, weights


@lru_cache(maxsize=64)
def _series(p: int, q: int, d: int, within: float) -> tuple[Floats, NDArray[np.complex128]]:
    """Frequencies of the mean of the roots on [0, within], and its characteristic function there."""
    nodes, weights = _legendre(_NODES)
    angle = np.pi / 4 * (nodes + 1)
    x = np.sin(angle) ** 2  # w1 dx is smooth in the angle
    w1 = np.sin(angle) ** (q - p) * np.cos(angle) ** (d - q - p)
    # any basis of polynomials serves; one orthonormal for w1 on the nodes is well conditioned
    F = (
        lapack.qr(np.vander(x, p, increasing=True) * np.sqrt(w1 * weights)[:, None])[0]
        * np.sqrt(w1 / weights)[:, None]
    )
    J = _integration(nodes, weights)
    step = 2 * np.pi / within
    whole = _pfaffian_at(F.astype(np.complex128), J, weights)
    values: list[complex] = []
    while len(values) < _FREQUENCIES and (len(values) < 2 or max(map(abs, values[-2:])) > _NEGLIGIBLE):
        phase = np.exp(1j * (len(values) + 1) * step / p * x)
        values.append(_pfaffian_at(F * phase[:, None], J, weights) / whole)
    return step * np.arange(1.0, len(values) + 1), np.array(values, dtype=np.complex128)


def _integration(nodes: Floats, weights: Floats) -> Floats:
    """Matrix of the integrals from -1 to each node, for values at the nodes."""
    from numpy.polynomial import legendre

    n = len(nodes)
    P = legendre.legvander(nodes, n)
    degree = np.arange(n)
    integrals = np.empty((n, n))
    integrals[:, 0] = nodes + 1
    integrals[:, 1:] = (P[:, 2:] - P[:, : n - 1]) / (2 * degree[1:] + 1)
    return integrals @ ((degree + 0.5)[:, None] * P[:, :n].T * weights)


def _pfaffian_at(g: NDArray[np.complex128], J: Floats, weights: Floats) -> complex:
    product = (J @ g).T @ (weights[:, None] * g)
    M = product - product.T
    if len(M) % 2:
        border = weights @ g
        M = np.block([[M, border[:, None]], [-border[None, :], np.zeros((1, 1))]])
    return _pfaffian(M, tuple(range(len(M))))


def _pfaffian(M: NDArray[np.complex128], rows: tuple[int, ...]) -> complex:
    if not rows:
        return 1.0
    first, rest = rows[0], rows[1:]
    minors = (_pfaffian(M, rest[:n] + rest[n + 1 :]) for n in range(len(rest)))
    return sum(
        (1 - 2 * (n % 2)) * complex(M[first, k]) * minor
        for n, (k, minor) in enumerate(zip(rest, minors, strict=True))
    )


def _summed(y: Floats, omega: Floats, values: NDArray[np.complex128]) -> Floats:
    terms = values * (1 - np.exp(-1j * np.multiply.outer(y, omega))) / (1j * omega)
    total: Floats = (y + 2 * terms.real.sum(axis=-1)) * omega[0] / (2 * np.pi)
    return total
