"""Leading singular triplets, each converged by itself: a block Krylov space grown by the residuals of its pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry import lapack

if TYPE_CHECKING:
    from collections.abc import Callable

    from subspace.geometry.lapack import Floats

__all__ = ["TIED", "Triplets", "fresh", "triplets"]

TIED = 1e-6  # singular values nearer than this share of themselves are one, with several directions
_NOISE = 1e-7  # singular values below this share of the largest are lost in its square
_DEPENDENT = 1e-9  # share of a direction that is left of it where the basis has it already


@dataclass(frozen=True, eq=False)
class Triplets:
    """Leading singular triplets ``U (m, k), S (k,), V (n, k)``, descending.

    Attributes
    ----------
    residuals : ``||M.T u - s v||`` of each pair, as a share of the largest singular value
    """

    U: Floats
    S: Floats
    V: Floats
    residuals: Floats

    def first(self, k: int) -> Triplets:
        """The first `k` of them."""
        return Triplets(self.U[:, :k], self.S[:k], self.V[:, :k], self.residuals[:k])

    def settled(self, tol: float) -> int:
        """How many of them, from the first, are converged and not tied with the next one, or with one unknown."""
        good = int(np.argmax(np.append(self.residuals > tol, True)))
        while good and (good == len(self.S) or self.S[good - 1] - self.S[good] <= TIED * self.S[good - 1]):
            good -= 1
        return good


def triplets(
    apply: Callable[[Floats], Floats],
    adjoint: Callable[[Floats], Floats],
    start: Floats,
    k: int,
    *,
    tol: float = 1e-10,
    steps: int = 60,
    most: int = 600,
    better: Callable[[Floats, Floats], Floats] | None = None,
) -> Triplets:
    """As many leading triplets of `M` as `start` has columns, of which the first `k` are converged.

    Parameters
    ----------
    apply, adjoint : functions
        ``X (n, b) -> M X`` and ``Y (m, b) -> M.T Y``, in float64.
    start : ndarray, shape (n, b)
        Of at least k columns. A repeated singular value is found up to b times.
    tol : float
        Residual, as a share of the largest singular value, at which a pair is converged.
    steps, most : int
        The space grows no longer than so many steps, and to no more than about so many directions.
    better : function, optional
        ``residuals (n, b), singular values (b,) -> directions (n, b)`` that the space grows by instead (Davidson).

    Notes
    -----
    Rayleigh-Ritz in float64, with full reorthogonalisation; the new directions of a step are the residuals of the
    current pairs, which span the same space as the next block of a Krylov iteration. One product each way a step.

    References
    ----------
    Musco & Musco 2015, NeurIPS 28, algorithm 2. Davidson 1975, J. Comput. Phys. 17:87.

    Examples
    --------
    >>> M = np.diag([1.0, 3.0, 2.0])
    >>> triplets(lambda X: M @ X, lambda Y: M.T @ Y, np.ones((3, 1)), 1).S.round(6)
    array([3.])
    """
    width = start.shape[1]
    Q = fresh(start, np.empty((len(start), 0)))
    Y = apply(Q)
    for step in range(steps):
        found = _pairs(Q, Y, width)
        R = adjoint(found.U) - found.V * found.S
        top = max(float(found.S[0]), np.finfo(float).tiny) if len(found.S) else 1.0
        residuals = np.linalg.norm(R, axis=0) / top
        found = Triplets(found.U, found.S, found.V, residuals)
        if np.all(residuals[:k] <= tol) or step == steps - 1 or Q.shape[1] >= most:
            break
        wanted = residuals > tol / 10
        new = fresh(R[:, wanted] if better is None else better(R[:, wanted], found.S[wanted]), Q)
        if not new.size:
            break
        Q, Y = np.hstack([Q, new]), np.hstack([Y, apply(new)])
    return found


def _pairs(Q: Floats, Y: Floats, width: int) -> Triplets:
    """Rayleigh-Ritz in the span of Q, Y = M Q: pairs of which ``M v = s u`` holds exactly."""
    values, y = lapack.eigh(Y.T @ Y)
    S = np.sqrt(np.maximum(values[:width], 0.0))
    S = S[_NOISE * S[:1] < S]
    y = y[:, : len(S)]
    return Triplets(Y @ y / S, S, Q @ y, np.zeros(len(S)))


def fresh(X: Floats, Q: Floats) -> Floats:
    """Orthonormal columns for what X has outside the span of Q, as far as there is room."""
    norms = np.linalg.norm(X, axis=0)
    X = X[:, norms > 0] / norms[norms > 0]
    X = X[:, : max(0, len(X) - Q.shape[1])]
    for _ in range(2):
        X = X - Q @ (Q.T @ X)
        if not X.size:
            break
        X, R = lapack.qr(X)
        X = X[:, np.abs(R.diagonal()) > _DEPENDENT]
    return X
