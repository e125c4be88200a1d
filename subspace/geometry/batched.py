"""Many small products at once, since one call for each would cost more than its arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.rounding import float64_noise, product_noise

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["norms", "singular_values"]


def singular_values(B: Floats, A: Floats) -> list[Floats]:
    """Singular values of every ``B[n] @ A[n]``, descending, cut at its numerical rank as `product_frames` cuts.

    Parameters
    ----------
    B : ndarray, shape (n, d_out, r)
    A : ndarray, shape (n, r, d_in)
        Both finite; none of the products is formed.

    Raises
    ------
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    With ``B = Q_B R_B`` and ``A.T = Q_A R_A`` they are those of ``R_B @ R_A.T``. A value too large for float64 is
    infinite.

    Examples
    --------
    >>> B, A = np.array([[[3.0], [4.0]], [[0.0], [0.0]]]), np.array([[[2.0, 0.0]], [[1.0, 1.0]]])
    >>> singular_values(B, A)
    [array([10.]), array([], dtype=float64)]
    """
    B, exponent_B = _in_range(B)
    A, exponent_A = _in_range(A)
    R_B, R_A = lapack.qr(B)[1], lapack.qr(A.swapaxes(1, 2))[1]
    S = lapack.singular_values(R_B @ R_A.swapaxes(1, 2))
    sizes = zip(_frobenius(R_B).tolist(), _frobenius(R_A).tolist(), strict=True)
    relative = np.array([product_noise(*norms) for norms in sizes])
    noise = np.maximum(relative, float64_noise((B.shape[1], *A.shape[1:]), 1.0) * S[:, 0])
    with np.errstate(over="ignore", under="ignore"):
        values = np.ldexp(S, (exponent_B + exponent_A)[:, None])
    counts = np.count_nonzero(noise[:, None] < S, axis=1)
    return [row[:k] for row, k in zip(values, counts.tolist(), strict=True)]


def norms(M: Floats) -> Floats:
    """Frobenius norm of every matrix of a stack, shape (n,); the squares cannot overflow.

    Parameters
    ----------
    M : ndarray, shape (n, rows, columns)

    Examples
    --------
    >>> norms(np.array([[[3.0, 4.0]], [[3e200, 4e200]]]))
    array([5.e+000, 5.e+200])
    """
    small, exponent = _in_range(M)
    with np.errstate(over="ignore", under="ignore"):
        whole: Floats = np.ldexp(_frobenius(small), exponent)
    return whole


def _in_range(M: Floats) -> tuple[Floats, np.ndarray]:
    """Every matrix divided by a power of two, so that its largest entry is in [1/2, 1), and the exponents."""
    exponent = np.frexp(np.abs(M).max(axis=(1, 2), initial=0.0))[1]
    with np.errstate(under="ignore"):
        return np.ldexp(M, -exponent[:, None, None]), exponent


def _frobenius(M: Floats) -> Floats:
    whole: Floats = np.sqrt(np.einsum("nij,nij->n", M, M))
    return whole
