"""SVD, norm and inner product of ``B @ A`` from its factors; the product is never formed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import frame, lapack
from subspace.geometry.gram import scaled_back

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["inner", "norm", "singular_values", "svd"]


def svd(B: Any, A: Any) -> tuple[Floats, Floats, Floats]:
    """Thin ``U (d_out, k), S (k,), Vh (k, d_in)`` of ``B @ A``, `S` descending, cut at the numerical rank.

    Parameters
    ----------
    B : array_like, shape (d_out, r)
    A : array_like, shape (r, d_in)

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    Costs two r x r Gram matrices and one r x r SVD. Where either factor is zero, ``k = 0``.

    Examples
    --------
    >>> U, S, Vh = svd([[3.0], [0.0]], [[0.0, 2.0]])
    >>> S, U @ np.diag(S) @ Vh
    (array([6.]), array([[0., 6.],
           [0., 0.]]))
    """
    left, right = frame.product_frames(B, A)
    return left.vectors(), left.S, right.vectors().T


def singular_values(B: Any, A: Any) -> Floats:
    """Singular values of ``B @ A``, descending, shape (min(r, d_out, d_in),); zeros beyond the rank.

    Parameters and errors as `svd`; those beyond the numerical rank are rounding noise.

    Examples
    --------
    >>> singular_values([[3.0], [0.0]], [[0.0, 2.0]])
    array([6.])
    """
    core, exponent = frame.core(B, A)
    if core is None:
        B, A = frame.factors(B, A)
        return np.zeros(min(*B.shape, *A.shape))
    return scaled_back(lapack.singular_values(core), exponent)


def norm(B: Any, A: Any) -> float:
    """Frobenius norm of ``B @ A``, the root of the sum of its squared singular values.

    Parameters and errors as `svd`.

    Notes
    -----
    The norm of the r x r core, so a product much smaller than its factors (nearly cancelling columns)
    keeps its digits.

    Examples
    --------
    >>> norm([[3.0], [4.0]], [[0.0, 2.0]])
    10.0
    """
    core, exponent = frame.core(B, A)
    if core is None:
        return 0.0
    return float(scaled_back(np.array(np.linalg.norm(core)), exponent))


def inner(B1: Any, A1: Any, B2: Any, A2: Any) -> float:
    """Frobenius inner product ``<B1 @ A1, B2 @ A2> = tr((B1.T B2) (A2 A1.T))``.

    Parameters
    ----------
    B1, B2 : array_like, shapes (d_out, r1) and (d_out, r2)
    A1, A2 : array_like, shapes (r1, d_in) and (r2, d_in)

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ValueRangeError
        If an entry is not finite, or the result leaves the range of float64.

    Examples
    --------
    >>> inner([[1.0], [0.0]], [[2.0, 0.0]], [[3.0], [5.0]], [[1.0, 7.0]])
    6.0
    """
    B1, A1 = frame.factors(B1, A1)
    B2, A2 = frame.factors(B2, A2)
    if B1.shape[0] != B2.shape[0] or A1.shape[1] != A2.shape[1]:
        raise ShapeError(
            f"Updates of different shapes: {(B1.shape[0], A1.shape[1])} and {(B2.shape[0], A2.shape[1])}; "
            "compare updates of the same module"
        )
    scaled = [_unit(M) for M in (B1, A1, B2, A2)]
    (B1, A1, B2, A2), exponents = [M for M, _ in scaled], [e for _, e in scaled]
    with np.errstate(under="ignore"):
        value = np.sum((B1.T @ B2) * (A1 @ A2.T))
    with np.errstate(over="ignore", under="ignore"):
        value = float(np.ldexp(value, sum(exponents)))
    if not np.isfinite(value):
        raise ValueRangeError("The inner product is above 1.8e308, the largest float64; rescale the factors")
    return value


def _unit(M: Floats) -> tuple[Floats, int]:
    """`M` over a power of two, and its exponent: 0 unless products of entries could leave float64."""
    peak = float(np.abs(M).max(initial=0.0))
    if peak == 0.0 or 1e-60 < peak < 1e60:
        return M, 0
    lapack.refuse(M, name="a factor")  # NaN gets here too, since it compares as false
    exponent = int(np.frexp(peak)[1])
    return np.ldexp(M, -exponent), exponent
