"""Frames: the singular directions of a matrix or of a product ``B @ A``, kept as combinations of its rows.

The route is the r x r Gram matrix in float64, which costs one symmetric product and one small
eigenproblem. Its error grows like eps * kappa^2, so an ill-conditioned matrix is first orthonormalised:
by a second Cholesky pass where that is enough, by Householder QR where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack
from subspace.geometry.frobenius import frobenius
from subspace.geometry.gram import EPS, WELL, gram, orthonormal, scaled_back
from subspace.geometry.rounding import exchanged, float64_noise, product_coupling, product_noise, row_coupling

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Frame", "overlap", "product_frame", "product_frames", "row_frame"]


_BLOCK = 1024  # columns
_NOTHING = np.zeros((1, 1))
_UNCOUPLED = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Frame:
    """`k` orthonormal directions in R^d by descending singular value, kept as ``vectors = X.T @ C``.

    Attributes
    ----------
    X : ndarray, shape (r, d)
        Rows that span the directions (the matrix that was factored, or an orthonormalised stand-in).
    C : ndarray, shape (r, k)
        Coefficients of the directions.
    S : ndarray, shape (k,)
        Singular values of the matrix that was factored, descending.
    resolution : float
        Relative unit of the stored values: 2**-52 for float64, 2**-23 for float32, 2**-10 for float16,
        2**-7 for bfloat16.
    coupling : ndarray, shape (k - 1,) or longer
        How strongly rounding couples each direction and the next, as `rounding.exchanged` takes it.
    P : ndarray, shape (r, k), optional
        Left singular vectors of the matrix that was factored, ``M = P @ diag(S) @ vectors().T``; None for the frame of
        a product or of a dense matrix.
    """

    X: Floats
    C: Floats
    S: Floats
    resolution: float = EPS
    coupling: Floats = field(default_factory=lambda: _UNCOUPLED)
    P: Floats | None = None

    @property
    def d(self) -> int:
        """Dimension of the space that the directions live in."""
        return int(self.X.shape[1])

    @property
    def k(self) -> int:
        """Number of directions: the numerical rank of the matrix that was factored."""
        return int(self.C.shape[1])

    @property
    def ties(self) -> tuple[int, ...]:
        """Every `i` (from 1) for which the data do not determine the top-i span.

        There the rounding of the stored values, or of the computation, turns the i-th direction and the next into each
        other, see `rounding.exchanged`.
        """
        return exchanged(self.S, self.coupling)

    def vectors(self) -> Floats:
        """Return the directions as orthonormal columns, shape (d, k).

        Examples
        --------
        >>> abs(row_frame(np.array([[0.0, 3.0]])).vectors())
        array([[0.],
               [1.]])
        """
        return self.X.T @ self.C


def row_frame(A: Any, *, resolution: float = EPS) -> Frame:
    """Right singular vectors of `A`, a frame of its row space, by descending singular value.

    Parameters
    ----------
    A : array_like, shape (r, d)
        Of any real type; computed in float64. The left singular vectors of `B` are ``row_frame(B.T)``.
    resolution : float
        Relative unit of the values as stored, for `Frame.ties`.

    Returns
    -------
    Frame
        Cut at the numerical rank, ``max(r, d) * eps * sigma_1``. A zero matrix gives ``k = 0``.

    Raises
    ------
    ShapeError
        If `A` is not a matrix of real numbers.
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    Singular vectors are within 1e-10 of those of a dense float64 SVD. The cost is one r x r x d symmetric
    product and one r x r eigenproblem; beyond a condition number of 3e2 about four times that, beyond
    1e6 (or for a deficient rank, or r > d) a Householder QR.

    References
    ----------
    Hu et al., LoRA, arXiv 2106.09685v2, section 7.2 (U_A).

    Examples
    --------
    >>> frame = row_frame([[0.0, 2.0, 0.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    >>> frame.k, frame.S
    (2, array([5., 2.]))
    """
    X, K, exponent = gram(_matrix(A, "A"))
    if K is None:
        return _empty(X, resolution)
    values, P = lapack.eigh(K)
    if values[-1] >= WELL * values[0]:
        C, S = P / np.sqrt(values), np.sqrt(values)
        coupling = row_coupling(S, X.shape, resolution, squared=True)
        return Frame(X, C, scaled_back(S, exponent), resolution, coupling, P)
    Y, D, R = orthonormal(X, K)  # X.T = (Y.T @ D) @ R
    V, S, Wh = lapack.svd(R)
    coupling = row_coupling(S, X.shape, resolution, squared=Y is X)
    frame = _cut(Y, D @ V, S, float64_noise(X.shape, S[0]), exponent, resolution, coupling)
    return replace(frame, P=Wh.T[:, : frame.k])


def product_frame(B: Any, A: Any, *, side: str = "right", resolution: float = EPS) -> Frame:
    """Singular vectors of ``B @ A`` on one side, the product never formed.

    Parameters
    ----------
    B : array_like, shape (d_out, r)
    A : array_like, shape (r, d_in)
    side : {"left", "right"}
        "left": directions in R^d_out; "right": directions in R^d_in.
    resolution : float
        As for `row_frame`.

    Returns
    -------
    Frame
        As `row_frame`; ``k = 0`` where either factor is zero.

    Raises
    ------
    ShapeError
        If the shapes do not fit or `side` is neither word.
    ValueRangeError
        If an entry is not finite.

    Examples
    --------
    >>> B, A = [[3.0], [0.0]], [[0.0, 0.0, 2.0]]
    >>> product_frame(B, A, side="left").S, abs(product_frame(B, A).vectors()[:, 0])
    (array([6.]), array([0., 0., 1.]))
    """
    if side not in ("left", "right"):
        raise ShapeError(f"Unknown side: {side!r}; choose 'left' or 'right'")
    left, right = product_frames(B, A, resolution=resolution)
    return left if side == "left" else right


def product_frames(B: Any, A: Any, *, resolution: float = EPS) -> tuple[Frame, Frame]:
    """Left and right singular vectors of ``B @ A`` as two frames that share one core.

    Parameters, errors and accuracy as `product_frame`; the columns of the two match, signs included:
    ``B @ A = left.vectors() @ diag(S) @ right.vectors().T``.

    Notes
    -----
    With ``B = Q_B R_B`` and ``A.T = Q_A R_A`` the singular values are those of the r x r core
    ``R_B @ R_A.T``.

    Examples
    --------
    >>> left, right = product_frames([[3.0], [0.0]], [[0.0, 0.0, -2.0]])
    >>> left.vectors() @ np.diag(left.S) @ right.vectors().T
    array([[ 0.,  0., -6.],
           [ 0.,  0.,  0.]])
    """
    B, A = factors(B, A)
    X_B, K_B, exponent_B = gram(B.T)
    X_A, K_A, exponent_A = gram(A)
    if K_B is None or K_A is None:
        return _empty(X_B, resolution), _empty(X_A, resolution)
    Y_B, C_B, R_B = orthonormal(X_B, K_B)
    Y_A, C_A, R_A = orthonormal(X_A, K_A)
    U, S, Vh = lapack.svd(R_B @ R_A.T)
    noise = product_noise(frobenius(R_B), frobenius(R_A))
    noise, exponent = max(noise, float64_noise((*B.shape, *A.shape), S[0])), exponent_B + exponent_A
    kappa = float(np.hypot(_squared(X_B, Y_B, C_B, R_B), _squared(X_A, Y_A, C_A, R_A)))
    coupling = product_coupling(R_B, R_A, (U, S, Vh), (B.shape, A.shape), resolution, kappa=kappa)
    left, right = (
        _cut(Y, C, S, noise, exponent, resolution, coupling) for Y, C in ((Y_B, C_B @ U), (Y_A, C_A @ Vh.T))
    )
    return left, right


def overlap(first: Frame, second: Frame) -> Floats:
    """Inner products ``G = U_first.T @ U_second`` of two frames, shape (k1, k2), each in [-1, 1].

    Parameters
    ----------
    first, second : Frame
        Of k1 and k2 directions in the same space.

    Raises
    ------
    ShapeError
        If the frames belong to spaces of different dimensions.

    Examples
    --------
    >>> e1, e2 = row_frame([[1.0, 0.0]]), row_frame([[0.0, 1.0]])
    >>> overlap(e1, e1), overlap(e1, e2)
    (array([[1.]]), array([[0.]]))
    """
    if first.d != second.d:
        raise ShapeError(
            f"Frames of spaces of different dimensions: {first.d} and {second.d}; "
            "compare modules of the same shape"
        )
    # in blocks that fit the cache: on two whole flat matrices BLAS is twice as slow
    blocks = (slice(start, start + _BLOCK) for start in range(0, first.d, _BLOCK))
    cross = sum((first.X[:, block] @ second.X[:, block].T for block in blocks), start=_NOTHING)
    return first.C.T @ cross @ second.C


def core(B: Any, A: Any) -> tuple[Floats | None, int]:
    """Matrix of at most r x r with the singular values of ``B @ A / 2**exponent`` (None if zero), and the exponent."""
    B, A = factors(B, A)
    X_B, K_B, exponent_B = gram(B.T)
    X_A, K_A, exponent_A = gram(A)
    if K_B is None or K_A is None:
        return None, 0
    R_B, R_A = orthonormal(X_B, K_B)[2], orthonormal(X_A, K_A)[2]
    return R_B @ R_A.T, exponent_B + exponent_A


def factors(B: Any, A: Any) -> tuple[Floats, Floats]:
    """`B` and `A` in float64, once their shapes have been checked."""
    B, A = _matrix(B, "B"), _matrix(A, "A")
    if B.shape[1] != A.shape[0]:
        raise ShapeError(
            f"B and A cannot be multiplied: shapes {B.shape} and {A.shape}; "
            "check their layout, B (d_out, r) and A (r, d_in)"
        )
    return B, A


def _matrix(M: Any, name: str) -> Floats:
    wide = lapack.as_float64(M, name=name)
    if wide.ndim != 2:
        raise ShapeError(f"Not a matrix: {name} has shape {wide.shape}; reshape it")
    return wide


def _squared(X: Floats, Y: Floats, C: Floats, R: Floats) -> float:
    """Bound of the condition number that a single Cholesky pass squared; 1 for the other routes."""
    return frobenius(C) * frobenius(R) if Y is X else 1.0


def _cut(
    Y: Floats, C: Floats, S: Floats, noise: float, exponent: int, resolution: float, coupling: Floats
) -> Frame:
    k = int(np.count_nonzero(noise < S))
    return Frame(Y, C[:, :k], scaled_back(S[:k], exponent), resolution, coupling)


def _empty(X: Floats, resolution: float) -> Frame:
    return Frame(X, np.zeros((X.shape[0], 0)), np.zeros(0), resolution)
