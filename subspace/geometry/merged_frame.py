"""``W + s B A`` in the frame of W's singular vectors: a diagonal and a low-rank term, quick to factor at any s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.frobenius import frobenius
from subspace.geometry.triplets import Triplets, triplets

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["MergedFrame", "framed"]

_TOL = 1e-10  # residual of a triplet, as a share of the largest singular value
_SETTLED = 1e-7  # above this the core is factored in full
_GUARD = 6  # directions beyond the wanted ones in a block, and leading ones of the update in a start
_NEAR = 1e-8  # share of the largest eigenvalue that a difference of two is not taken to be below


@dataclass(frozen=True, eq=False)
class MergedFrame:
    """The core ``diag(S) + s B A`` of ``W + s B A`` between orthonormal `left` (m, P) and `right` (n, Q).

    Attributes
    ----------
    S : ndarray, shape (p,)
        Singular values of W, whose vectors are the first p columns of `left` and `right`.
    B, A : ndarray, shapes (P, r) and (r, Q)
        The factors in that frame; rows and columns beyond p are what they have outside W's singular vectors.
    left, right : ndarray, shapes (m, P) and (n, Q)
    """

    S: Floats
    B: Floats
    A: Floats
    left: Floats
    right: Floats

    def merged(self, s: float, k: int) -> Triplets:
        """The `k` leading singular triplets of ``W + s B A``, their vectors in the coordinates of the frame.

        Notes
        -----
        Davidson's method with the diagonal: a few products of the cost of ``B (A X)``. Where it does not settle, the
        core is factored in full.
        """
        smaller = min(len(self.B), self.A.shape[1])
        k = min(k, smaller)
        if smaller > 4 * (k + 2 * _GUARD):
            found = triplets(
                lambda X: self._diagonal(X, len(self.B)) + s * (self.B @ (self.A @ X)),
                lambda Y: self._diagonal(Y, self.A.shape[1]) + s * (self.A.T @ (self.B.T @ Y)),
                self._start(k),
                k,
                tol=_TOL,
                steps=30,
                most=smaller // 2,
                better=self._closer,
            )
            if len(found.S) >= k and found.residuals[:k].max() <= _SETTLED:
                return found.first(k)
        core = s * (self.B @ self.A)
        core[np.arange(len(self.S)), np.arange(len(self.S))] += self.S
        U, S, Vh = lapack.svd(core)
        return Triplets(U[:, :k], S[:k], Vh[:k].T, np.zeros(k))

    def _diagonal(self, X: Floats, rows: int) -> Floats:
        out = np.zeros((rows, X.shape[1]))
        out[: len(self.S)] = self.S[:, None] * X[: len(self.S)]
        return out

    def _start(self, k: int) -> Floats:
        """W's leading right vectors, and those of the update."""
        first = min(k + _GUARD, self.A.shape[1])
        leading = np.eye(self.A.shape[1], first)
        L, R = lapack.qr(self.B)[1], lapack.qr(self.A.T)[1]
        turned = lapack.svd(L @ R.T)[2][:_GUARD]  # directions of B A, as combinations of the rows of Q
        Q = lapack.qr(self.A.T)[0]
        return np.hstack([leading, Q @ turned.T])

    def _closer(self, R: Floats, sigma: Floats) -> Floats:
        squares = np.zeros(self.A.shape[1])
        squares[: len(self.S)] = self.S**2
        gaps = sigma**2 - squares[:, None]
        least = _NEAR * max(float(sigma.max(initial=0.0)), float(self.S[0])) ** 2
        closer: Floats = R / np.where(np.abs(gaps) < least, np.copysign(least, gaps), gaps)
        return closer


def framed(U: Floats, S: Floats, V: Floats, B: Floats, A: Floats) -> MergedFrame:
    """The frame of ``W = U diag(S) V.T`` for the update ``B A``.

    Parameters
    ----------
    U, S, V : ndarray, shapes (m, p), (p,) and (n, p)
    B, A : ndarray, shapes (m, r) and (r, n)

    Examples
    --------
    >>> W = np.diag([3.0, 1.0])
    >>> frame = framed(np.eye(2), np.diag(W), np.eye(2), np.array([[0.0], [1.0]]), np.array([[0.0, 1.0]]))
    >>> frame.merged(4.0, 1).S
    array([5.])
    """
    left, B = _extended(U, B)
    right, At = _extended(V, A.T)
    return MergedFrame(S, B, At.T, left, right)


def _extended(U: Floats, B: Floats) -> tuple[Floats, Floats]:
    """U with what B has outside it, orthonormal, and B in those coordinates."""
    inside = U.T @ B
    rest = B - U @ inside
    again = U.T @ rest
    inside, rest = inside + again, rest - U @ again
    if U.shape[0] == U.shape[1] or not frobenius(rest) > 1e-12 * frobenius(B):
        return U, inside
    # room for further directions is what U leaves
    Q, S, Vh = lapack.svd(rest)
    room = U.shape[0] - U.shape[1]
    kept = int(np.count_nonzero(1e-13 * frobenius(B) < S))
    kept = min(kept, room)
    return np.hstack([U, Q[:, :kept]]), np.vstack([inside, S[:kept, None] * Vh[:kept]])
