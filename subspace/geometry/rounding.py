"""What rounding does to singular values: which of them it makes, and which of them it can exchange.

The rule of rank, for frames, spectra, and cuts alike: a singular value counts where it is above

- `float64_noise`, ``max(m, n) * eps * sigma_1``: what a factorisation in float64 makes of a zero;
- `product_noise`, for a product ``B @ A``: the same relative to the factors, which matters where columns cancel;
- `stored_noise`, for a matrix whose own numbers were rounded to the type of a file (a stored delta_W, or the difference
  of two stored weights): the norm of that rounding.

A matrix that is computed in float64 from stored numbers, such as the product of a LoRA, LoHa or LoKr, is exact by this
rule, whatever the type of those numbers: rounding the factors of a product does not change its rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry.frobenius import frobenius
from subspace.geometry.gram import EPS

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["exchanged", "float64_noise", "product_coupling", "product_noise", "row_coupling", "stored_noise"]

_CANCELLED = 4  # times eps, relative to the factors: columns that cancel leave 1.5 at most
_TURN = 0.1  # radians by which rounding may turn two directions into each other
_ROUTE = (
    2.0  # times eps * sigma_1: what an SVD or an eigenproblem moves singular values by, in the worst case
)


def float64_noise(shape: tuple[int, ...], largest: float) -> float:
    """Singular values up to this are rounding of float64: ``max(shape) * eps * largest``.

    Examples
    --------
    >>> float64_noise((4, 8), 2.0) == 16 * 2.0**-52
    True
    """
    return max(shape) * EPS * largest


def product_noise(norm_B: float, norm_A: float) -> float:
    """Singular values of ``B @ A`` up to this are rounding of float64, relative to the norms of the factors."""
    return _CANCELLED * EPS * norm_B * norm_A


def stored_noise(M: Floats, resolution: float) -> float:
    """Spectral norm of the rounding of stored numbers: singular values below it are not data.

    Parameters
    ----------
    M : ndarray, shape (m, n)
        The stored values.
    resolution : float
        Relative unit of the stored values: each is off by up to half of it.

    Notes
    -----
    Independent errors proportional to the entries have a spectral norm of about the largest row norm plus the largest
    column norm of their standard deviations, ``resolution / sqrt(12) * abs(M)``; the bound here is sqrt(3) times that.

    References
    ----------
    Bandeira & van Handel 2016, Ann. Probab. 44:2479, for the norm of a random matrix with independent entries.

    Examples
    --------
    >>> stored_noise(np.array([[3.0, 4.0]]), 0.5)
    2.25
    """
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", M, M), np.einsum("ij,ij->j", M, M)
    rows, columns = (float(np.sqrt(each.max(initial=0.0))) for each in squares)
    if not np.isfinite(rows + columns):
        largest = float(np.abs(M).max())
        if not np.isfinite(largest):
            return np.inf  # no value stands above it; what factors the matrix refuses it
        return stored_noise(M / largest, resolution) * largest
    return resolution / 2 * (rows + columns)


def exchanged(S: Floats, coupling: Floats) -> tuple[int, ...]:
    """Every `i` (from 1) for which rounding turns the i-th of `k` directions and the next noticeably into each other.

    Parameters
    ----------
    S : ndarray, shape (k,)
        Descending singular values.
    coupling : ndarray, shape (k - 1,)
        Standard deviation of ``u_i^T E v_(i+1)`` relative to ``S[0]``, for the rounding `E` of the matrix.

    Notes
    -----
    To first order, `E` turns two directions by the coupling over the gap of their singular values; beyond 0.1 radians
    the span of the leading i is not determined.

    References
    ----------
    Stewart & Sun 1990, Matrix Perturbation Theory, section V.4.

    Examples
    --------
    >>> exchanged(np.array([3.0, 2.0, 2.0]), np.array([0.01, 0.01]))
    (2,)
    """
    if len(S) < 2:
        return ()
    gaps = S[:-1] / S[0] - S[1:] / S[0]
    return tuple(((_TURN * gaps <= coupling[: len(gaps)]).nonzero()[0] + 1).tolist())


def row_coupling(S: Floats, shape: tuple[int, ...], resolution: float, *, squared: bool) -> Floats:
    """Coupling of neighbouring directions of a matrix, shape (k - 1,), relative to ``S[0]``, for `exchanged`.

    Parameters
    ----------
    S : ndarray, shape (k,)
        Descending singular values of the matrix.
    shape : of the matrix
    resolution : float
        Relative unit of its stored values, whose rounding has the standard deviation ``resolution / sqrt(12)``.
    squared : bool
        Whether they come from a Gram matrix: that is off by eps * sigma_1^2, and they by eps * sigma_1^2 / sigma.
    """
    relative = S / S[0] if len(S) else S
    stored = _deviation(frobenius(relative), shape, resolution)
    route = _ROUTE * EPS / relative if squared else _ROUTE * EPS * np.ones(len(S))
    return np.asarray(np.hypot(stored, route)[1:])


def product_coupling(
    R_B: Floats, R_A: Floats, core: tuple[Floats, Floats, Floats], shapes: tuple[tuple[int, ...], tuple[int, ...]],
    resolution: float, *, kappa: float,
) -> Floats:  # fmt: skip
    """Coupling of neighbouring directions of ``B @ A`` by the rounding of both factors, as `row_coupling`.

    Parameters
    ----------
    R_B, R_A : triangles of the factors
    core : U, S, Vh of ``R_B @ R_A.T``
    shapes : of B and of A
    resolution : as for `row_coupling`
    kappa : condition number of a factor whose triangle comes from its Gram matrix: values are off by eps * kappa^2

    Notes
    -----
    The rounding of B couples u_i and v_j by ``u_i^T dB (A v_j)``, that of A by ``(B^T u_i)^T dA v_j``.
    """
    U, S, Vh = core
    if not len(S) or S[0] == 0:
        return np.zeros(0)
    size_B, size_A = frobenius(R_B), frobenius(R_A)
    by_B = _deviation(size_B, shapes[0], resolution) * np.linalg.norm(Vh @ R_A, axis=1)
    by_A = _deviation(size_A, shapes[1], resolution) * np.linalg.norm(R_B.T @ U, axis=0)
    stored = np.hypot(by_B, by_A) / S[0]
    route = _ROUTE * EPS * (kappa**2 * (S / S[0]) + size_B * (size_A / S[0]))
    return np.asarray(np.hypot(np.maximum(stored[:-1], stored[1:]), route[:-1]))


def _deviation(norm: float, shape: tuple[int, ...], resolution: float) -> float:
    """Root mean square of the rounding of one number of a matrix of this norm."""
    return float(resolution / np.sqrt(12) * norm / np.sqrt(np.prod(shape)))
