"""The only file that calls LAPACK: every factorisation of the package is one of these functions.

Each checks that its input is finite before LAPACK sees it (one infinity makes `gesdd` loop for ever, which no `except`
can stop), works in float64, and says in one line what went wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from subspace.errors import ShapeError, ValueRangeError
from subspace.text import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

__all__ = ["as_float64", "cholesky", "eigh", "eigvalsh", "inverse", "qr", "refuse", "singular_values", "svd"]


def as_float64(M: Any, *, name: str = "the array") -> Floats:
    """`M` as a float64 array in its own memory order; a float64 array is returned without a copy.

    Parameters
    ----------
    M : array_like, shape (..., m, n)
    name : str
        What errors call it.

    Raises
    ------
    ShapeError
        If `M` has fewer than two dimensions or does not hold real numbers.

    Examples
    --------
    >>> as_float64([[1, 2]])
    array([[1., 2.]])
    """
    M = np.asarray(M)
    if M.ndim < 2:
        raise ShapeError(f"Not a matrix: {name} has shape {M.shape}; reshape it")
    if M.dtype.kind not in "fiu":
        raise ShapeError(f"Not real numbers: {name} has dtype {M.dtype}; convert it to a float type")
    with np.errstate(invalid="ignore"):  # a signalling NaN warns here; the finite check names it
        wide: Floats = M.astype(np.float64, copy=False)
        return wide


def refuse(M: Floats, *, name: str = "the array") -> None:
    """Raise an error that names the first number of `M` that is not finite, if there is one.

    Parameters
    ----------
    M : ndarray, any shape
    name : str
        What the error calls it.

    Raises
    ------
    ValueRangeError
        If an entry of `M` is infinite or NaN.

    Examples
    --------
    >>> refuse(np.eye(2))
    """
    bad = ~np.isfinite(M)
    if bad.any():
        where = tuple(int(n) for n in np.argwhere(bad)[0])
        raise ValueRangeError(
            f"Not a finite number: {M[where]} at {where} of {name} of shape {M.shape} "
            f"({counted(int(bad.sum()), 'such number')}); the file is damaged or the training diverged"
        )


def svd(M: Any) -> tuple[Floats, Floats, Floats]:
    """Thin singular value decomposition ``U, S, Vh`` of `M`, `S` descending.

    Parameters
    ----------
    M : array_like, shape (..., m, n)

    Returns
    -------
    U : ndarray, shape (..., m, p)
    S : ndarray, shape (..., p)
    Vh : ndarray, shape (..., p, n)
        With ``p = min(m, n)``, so that ``M = U @ diag(S) @ Vh``.

    Raises
    ------
    ValueRangeError
        If an entry is not finite, or neither of LAPACK's two drivers converges.

    Notes
    -----
    `gesdd` fails on some finite matrices where the slower `gesvd` succeeds (numpy issue 12941), so those
    matrices go to `gesvd`.

    Examples
    --------
    >>> svd([[0.0, 3.0], [4.0, 0.0]])[1]
    array([4., 3.])
    """
    M = as_float64(M)
    refuse(M)
    try:
        U, S, Vh = np.linalg.svd(M, full_matrices=False)
    except np.linalg.LinAlgError:
        U, S, Vh = _gesvd(M)
    return U, S, Vh


def singular_values(M: Any) -> Floats:
    """Singular values of `M`, descending, shape ``(..., min(m, n))``.

    Parameters
    ----------
    M : array_like, shape (..., m, n)

    Raises
    ------
    ValueRangeError
        As `svd`.

    Examples
    --------
    >>> singular_values([[3.0, 4.0]])
    array([5.])
    """
    M = as_float64(M)
    refuse(M)
    try:
        return np.linalg.svd(M, compute_uv=False)
    except np.linalg.LinAlgError:
        return _gesvd(M)[1]


def _gesvd(M: Floats) -> tuple[Floats, Floats, Floats]:
    from scipy.linalg import svd as scipy_svd

    try:
        parts = [scipy_svd(one, full_matrices=False, lapack_driver="gesvd") for one in _matrices(M)]
    except np.linalg.LinAlgError as error:
        raise ValueRangeError(
            f"The singular value decomposition did not converge, neither gesdd nor gesvd: shape {M.shape}; "
            "rescale the matrix or report it"
        ) from error
    U, S, Vh = (np.stack(part) for part in zip(*parts, strict=True))
    batch = M.shape[:-2]
    return U.reshape(batch + U.shape[1:]), S.reshape(batch + S.shape[1:]), Vh.reshape(batch + Vh.shape[1:])


def _matrices(M: Floats) -> Floats:
    return M.reshape((-1, *M.shape[-2:]))


def eigh(K: Any) -> tuple[Floats, Floats]:
    """Eigenvalues of symmetric `K`, descending, and its eigenvectors as columns.

    Parameters
    ----------
    K : array_like, shape (..., n, n)
        Only the lower triangle is read.

    Returns
    -------
    values : ndarray, shape (..., n)
    vectors : ndarray, shape (..., n, n)

    Raises
    ------
    ValueRangeError
        If an entry is not finite or LAPACK does not converge.

    Examples
    --------
    >>> eigh([[1.0, 0.0], [0.0, 2.0]])[0]
    array([2., 1.])
    """
    K = as_float64(K)
    refuse(K)
    try:
        values, vectors = np.linalg.eigh(K)
    except np.linalg.LinAlgError as error:
        raise _no_eigenvalues(K) from error
    return values[..., ::-1], vectors[..., ::-1]


def eigvalsh(K: Any) -> Floats:
    """Eigenvalues of symmetric `K`, descending, shape ``(..., n)``; raises as `eigh`.

    Examples
    --------
    >>> eigvalsh([[1.0, 0.0], [0.0, 2.0]])
    array([2., 1.])
    """
    K = as_float64(K)
    refuse(K)
    try:
        return np.linalg.eigvalsh(K)[..., ::-1]
    except np.linalg.LinAlgError as error:
        raise _no_eigenvalues(K) from error


def _no_eigenvalues(K: Floats) -> ValueRangeError:
    return ValueRangeError(
        f"The eigenvalue decomposition did not converge: shape {K.shape}; rescale the matrix or report it"
    )


def qr(M: Any) -> tuple[Floats, Floats]:
    """Householder ``Q (..., m, p), R (..., p, n)`` of `M`, ``p = min(m, n)``.

    Parameters
    ----------
    M : array_like, shape (..., m, n)

    Raises
    ------
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    Columns of `Q` that belong to zero columns of `M` are arbitrary (identity columns): a caller that
    wants a span must truncate by the singular values of `R`.

    Examples
    --------
    >>> Q, R = qr([[0.0], [2.0]])
    >>> abs(Q[:, 0]), abs(R)
    (array([0., 1.]), array([[2.]]))
    """
    M = as_float64(M)
    refuse(M)
    Q, R = np.linalg.qr(M)
    return Q, R


def cholesky(K: Any) -> Floats | None:
    """Lower triangle `L` with ``K = L @ L.T``, shape (..., n, n); None where `K` is not positive definite in float64.

    Parameters
    ----------
    K : array_like, shape (..., n, n)
        Symmetric; only the lower triangle is read.

    Raises
    ------
    ValueRangeError
        If an entry is not finite.

    Examples
    --------
    >>> cholesky([[4.0]])
    array([[2.]])
    >>> cholesky([[-1.0]]) is None
    True
    """
    K = as_float64(K)
    refuse(K)
    try:
        return np.linalg.cholesky(K)
    except np.linalg.LinAlgError:
        return None


def inverse(M: Any) -> Floats:
    """Inverse of a small square matrix (meant for Cholesky triangles), shape ``(..., n, n)``.

    Raises
    ------
    ValueRangeError
        If an entry is not finite or the matrix is singular.

    Examples
    --------
    >>> inverse([[4.0]])
    array([[0.25]])
    """
    M = as_float64(M)
    refuse(M)
    try:
        return np.linalg.inv(M)
    except np.linalg.LinAlgError as error:
        raise ValueRangeError(
            f"Singular matrix: shape {M.shape}, without an inverse; drop dependent rows"
        ) from error
