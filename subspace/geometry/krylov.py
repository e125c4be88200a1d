"""Block Krylov iteration on ``W.T W``: one pass over `W` a step, the residual at no extra cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.gram import gram, orthonormal
from subspace.geometry.products import products

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.row_chunks import Rows

__all__ = ["BlockKrylov"]

_ROUNDING = 1.5e-7  # rounding of sums in float32: no estimate is smaller
_NOISE = 1e-6  # singular values below this share of the largest are rounding of float32
_LEFT_OVER = 3e-7  # share of the largest eigenvalue that a column of a float32 product is wrong by
_ORTHOGONAL = 1e-5  # cosine of a new direction with the basis, where float32 gives 1e-7
_UNSEEN = 3e-6  # share of ||W||_F^2 outside the basis that may be rounding of its sums in float32
_ALIKE = 0.03  # relative spread of eigenvalues that are taken for copies of one
_LEFT = 1e-5  # condition 1e5 of the Rayleigh quotient: up to here its inverse does not magnify rounding


class BlockKrylov:
    """An orthonormal basis `Q` of a block Krylov space of ``N = W.T W``, grown by one block a pass.

    Parameters
    ----------
    rows : Rows
        The matrix `W`, (m, n).
    start : ndarray, shape (n, b)
        The first block.
    squares : float
        ``||W||_F^2``, the sum of all eigenvalues of N.

    Notes
    -----
    Blocks are kept as rows: `Q` (s, n) and ``Y = (W Q.T).T`` (s, m) after s / b passes, with the Rayleigh quotient
    ``H = Y Y.T``. What N adds to the basis is all in the next block, so the Ritz vector of ``H y = lam y`` has
    the residual ``beta @ y_last``, `beta` being the triangle of that block.

    A block of b vectors finds at most b copies of a repeated eigenvalue, and its space may end early. `may_miss` tells
    when there can be more of them, and `widen` adds new directions, all of which are outside the basis.
    """

    def __init__(self, rows: Rows, start: Floats, squares: float) -> None:
        self.rows = rows
        self.squares = squares
        self.passes = 0
        self.width = 0  # directions that the space was started with, one copy of an eigenvalue each
        self._known = np.empty(0)  # eigenvalues before the last of them were added
        self._Q = np.empty((0, rows.shape[1]), dtype=np.float32)
        self._Y = np.empty((0, rows.shape[0]))
        self._H = np.empty((0, 0))
        self._ritz = np.empty(0), np.empty((0, 0))
        self._next, self._beta = np.empty((0, rows.shape[1]), dtype=np.float32), np.empty((0, 0))
        self.widen(start)
        self.step()

    @property
    def exhausted(self) -> bool:
        """Whether there is no further block, or no room for one in the space."""
        return len(self._next) == 0 or len(self._Q) + len(self._next) > min(self.rows.shape)

    @property
    def basis(self) -> NDArray[np.float32]:
        """The orthonormal rows so far, and those of the next block, shape (s, n)."""
        return np.concatenate([self._Q, self._next])

    def widen(self, block: Floats) -> None:
        """Add what a block (n, b) has outside the basis, as far as there is room, to the next block."""
        room = max(0, min(self.rows.shape) - len(self.basis))
        fresh = _orthonormal_rows(block[:, :room].T)[0]
        for _ in range(2 if len(self.basis) else 0):
            basis = self.basis
            fresh, _ = _orthonormal_rows(np.subtract(fresh, (fresh @ basis.T) @ basis, dtype=np.float32))
        self._beta = np.concatenate([self._beta, np.zeros((len(fresh), self._beta.shape[1]))])
        self._next = np.concatenate([self._next, fresh])
        self.width += len(fresh)
        self._known = self._ritz[0]

    def step(self) -> None:
        """Read `W` once and grow the basis by one block."""
        Y, Z = self._pass(self._next)
        self._Q = np.concatenate([self._Q, self._next])
        self._Y = np.concatenate([self._Y, Y.T])
        self._H = _bordered(self._H, self._Y @ self._Y[-len(self._next) :].T)
        self._ritz = lapack.eigh(self._H)
        # what N adds to the basis, orthogonalised twice: once leaves the rounding of the large part removed
        self._next, self._beta = _orthonormal_rows(self._outside(Z))
        self._next, _ = _orthonormal_rows(self._outside(self._next))
        if self._is_rounding():
            self._next, self._beta = self._next[:0], self._beta[:0]

    def _is_rounding(self) -> bool:
        """Whether the next block is only rounding of the last product in float32, and no direction of `W`.

        It is then small relative to that product; and a block that is not orthogonal to the basis would spoil it.
        """
        if not len(self._next):
            return False
        small = np.linalg.norm(self._beta) <= _LEFT_OVER * np.sqrt(len(self._next)) * self._ritz[0][0]
        return bool(small or np.abs(self._next @ self._Q.T).max() > _ORTHOGONAL)

    def _pass(self, block: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """``W Q.T`` (m, b) and ``Q W.T W`` (b, n) of one block."""
        Y, Z = products().gram_step(self.rows, np.ascontiguousarray(block.T))
        self.passes += 1
        return Y, Z

    def _outside(self, Z: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.subtract(Z, (Z @ self._Q.T) @ self._Q, dtype=np.float32)

    def error(self, k: int) -> float:
        """Relative error of ``sqrt(sum of the k leading eigenvalues)``, estimated by the residual.

        The lesser of the linear bound ``sqrt(k) ||R||`` of that sum and of the quadratic ``||R||^2 / gap``, with
        the gap below the k-th value as small as the residual of the next one allows.
        """
        values, y = self._ritz
        if len(values) <= k or len(self._beta) == 0:
            return float("inf") if len(values) <= k and not self.exhausted else _ROUNDING
        residuals = np.linalg.norm(self._beta @ y[-self._beta.shape[1] :, : k + 1], axis=0)
        size, gap = np.linalg.norm(residuals[:k]), values[k - 1] - values[k] - residuals[k]
        bound = np.sqrt(k) * size
        if gap > 0:
            bound = min(bound, size**2 / gap)
        energy = values[:k].sum()
        return max(_ROUNDING, float(bound / (2 * energy))) if energy > 0 else 0.0

    def may_miss(self, k: int) -> bool:
        """Whether directions outside the basis can be among the `k` + 1 leading ones.

        That is so where the space has ended, is not all of `W`, and the last directions that were added changed the
        answer; and where as many eigenvalues above the last wanted one agree as the space was started with directions:
        there may be further copies of them.
        """
        values = self._ritz[0]
        if self._unseen() <= _UNSEEN * self.squares or len(self.basis) >= min(self.rows.shape):
            return False
        if len(values) <= k:
            return True
        if values[k] >= (1 - _ALIKE) * values[0]:
            return self.missing(k) > _ALIKE
        ended = len(self._next) == 0 and values[:k].sum() > (1 + _UNSEEN) * self._known[:k].sum()
        return ended or _has_copies(values[: k + 1], self.width)

    def missing(self, k: int) -> float:
        """Bound of the relative error of ``sqrt(sum of the k leading eigenvalues)`` by directions that were not found.

        Those hold no more than the rest of ``||W||_F^2``, and none of them more than the leading one.
        """
        values = self._ritz[0]
        energy = values[:k].sum()
        if energy <= 0:
            return 0.0
        return float(np.sqrt(1 + max(0.0, min(self._unseen(), k * values[0] - energy)) / energy) - 1)

    def _unseen(self) -> float:
        """The part of ``||W||_F^2`` that is not in the basis."""
        return max(0.0, self.squares - float(self._ritz[0].sum()))

    def triplets(self, k: int) -> tuple[Floats, Floats, Floats]:
        """``U (m, k), S (k,), V (n, k)``, fewer where the rest is rounding."""
        values, y = self._ritz
        if len(self._beta) and values[-1] > _LEFT * values[0]:
            return self._left(k)
        S = np.sqrt(np.maximum(values[:k], 0.0))
        S = S[_NOISE * S[:1] < S]
        y = y[:, : len(S)]
        return self._Y.T @ y / S, S, self._Q.T @ y

    def _left(self, k: int) -> tuple[Floats, Floats, Floats]:
        """Triplets of `W` projected on the span of `Y`: half a step ahead of `Q`, for no further pass.

        ``Q_Y = inv(L) Y`` is orthonormal, ``H = L L.T``, and ``Q_Y W = inv(L) (H Q + e_last beta.T Q_next)``.
        """
        L = np.asarray(lapack.cholesky(self._H))  # exists: the caller has looked at the eigenvalues
        inverse = lapack.inverse(L)
        to_next = inverse[:, -self._beta.shape[1] :] @ self._beta.T
        c, S, rows = lapack.svd(np.concatenate([L.T, to_next], axis=1))
        c, S, rows = c[:, :k], S[:k], rows[:k]
        basis = np.concatenate([self._Q, self._next])
        return self._Y.T @ (inverse.T @ c), S, basis.T @ rows.T


def _has_copies(values: Floats, width: int) -> bool:
    """Whether `width` of the descending values are alike, next to the distance to the value that follows."""
    first, last, after = values[: max(0, len(values) - width)], values[width - 1 : -1], values[width:]
    return bool(np.any((first - last < last - after) & (first - last <= _ALIKE * first)))


def _bordered(H: Floats, columns: Floats) -> Floats:
    """`H` with the symmetric border whose last columns are given."""
    size = len(H)
    return np.block([[H, columns[:size]], [columns[:size].T, columns[size:]]])


def _orthonormal_rows(Z: NDArray[np.floating]) -> tuple[NDArray[np.float32], Floats]:
    """Orthonormal rows with the span of those of `Z`, and the triangle that makes `Z` of them; empty for zero."""
    X, K, exponent = gram(Z.astype(np.float64))
    if K is None:
        return np.empty((0, Z.shape[1]), dtype=np.float32), np.empty((0, 0))
    Y, C, R = orthonormal(X, K)
    return (C.T @ Y).astype(np.float32), np.ldexp(R, exponent)
