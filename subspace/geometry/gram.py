"""Gram matrices in float64 that neither overflow nor underflow, and orthonormalisation by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import ValueRangeError
from subspace.geometry import lapack
from subspace.geometry.frobenius import frobenius

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["EPS", "WELL", "gram", "is_safe", "is_well", "orthonormal", "scaled_back"]

EPS = float(np.finfo(np.float64).eps)

# A Gram matrix is trusted while eps * kappa^2 is far below 1e-10; beyond, its matrix is orthonormalised.
WELL = 1e-5  # smallest over largest eigenvalue: kappa about 3e2
# A Cholesky pass removes a factor 1 / (eps * kappa) of the condition number, so two passes suffice to here.
_TWO_PASSES = 1e6
# Squares of float64 entries neither overflow nor lose their leading part between these.
_SAFE = (1e-200, 1e200)


def gram(X: Floats) -> tuple[Floats, Floats | None, int]:
    """``X / 2**exponent``, its Gram matrix (None if `X` is zero) and the exponent.

    The diagonal of the Gram matrix shows at no cost that no entry is infinite or NaN. The exponent is 0 unless squares
    would leave the range of float64.
    """
    with np.errstate(all="ignore"):
        K: Floats = X @ X.T  # NumPy turns this into a symmetric rank-k update
    if is_safe(K):
        return X, K, 0
    lapack.refuse(X, name="a factor")
    peak = float(np.abs(X).max(initial=0.0))
    if peak == 0.0:
        return X, None, 0
    exponent = int(np.frexp(peak)[1])
    with np.errstate(under="ignore"):
        X = np.ldexp(X, -exponent)
        return X, X @ X.T, exponent


def is_safe(K: Floats) -> bool:
    """Whether a Gram matrix is finite, not zero, and far from where float64 ends."""
    return bool(_SAFE[0] < K.diagonal().max(initial=0.0) < _SAFE[1])


def is_well(values: Floats) -> bool:
    """Whether a matrix is so well conditioned, by the descending eigenvalues of its Gram matrix, that those suffice."""
    return bool(values[-1] >= WELL * values[0])


def orthonormal(X: Floats, K: Floats) -> tuple[Floats, Floats, Floats]:
    """``Y, C, R`` with ``X.T = (Y.T @ C) @ R`` and orthonormal columns ``Y.T @ C``, given ``K = X @ X.T``."""
    once = _triangle(K)
    if once is not None and once[2] * np.sqrt(WELL) < np.sqrt(len(K)):
        return X, once[1], once[0]
    if once is not None and once[2] < _TWO_PASSES:
        Y = once[1].T @ X
        twice = _triangle(Y @ Y.T)
        if twice is not None:
            return Y, twice[1], twice[0] @ once[0]
    Q, R = lapack.qr(X.T)
    return Q.T, np.eye(Q.shape[1]), R


def _triangle(K: Floats) -> tuple[Floats, Floats, float] | None:
    """Upper `R` with ``K = R.T @ R``, its inverse, and a bound of its condition number."""
    L = lapack.cholesky(K)
    if L is None:
        return None
    inverse = lapack.inverse(L)
    return L.T, inverse.T, frobenius(L) * frobenius(inverse)


def scaled_back(S: Floats, exponent: int) -> Floats:
    """Return ``S * 2**exponent``, or raise ValueRangeError where float64 cannot hold it."""
    if exponent == 0:
        return S
    with np.errstate(over="ignore", under="ignore"):
        S = np.ldexp(S, exponent)
    if not np.isfinite(S).all():
        raise ValueRangeError(
            "A singular value is above 1.8e308, the largest float64; rescale the matrix or leave it out"
        )
    return S
