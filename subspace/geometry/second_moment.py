"""The second moment of a module's inputs, ``C = E[x x.T]``: its leading eigenpairs, with the rest taken as flat.

Everything that uses C works with ``C ~ V diag(values) V.T + floor (I - V V.T)``, whose trace is that of C. With all d
eigenpairs that is C itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.topk import leading

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Coordinates", "SecondMoment", "leading_pairs", "nystrom"]

_DENSE = 1024  # dimension up to which a dense eigendecomposition is as fast
_FINEST = 2e-7  # tolerance of the leading eigenspace, which is found in float32
_FITTED = 64  # eigenvalues that a power law is fitted to
_NOTHING = 1e-12  # of the largest eigenvalue, below which an eigenvalue is rounding


class Coordinates(NamedTuple):
    """Rows in the basis of the eigenvectors.

    Attributes
    ----------
    inside : (r, k) coordinates along the stored eigenvectors
    outside : (r, d) what is left of the rows; None where all d eigenvectors are stored
    """

    inside: Floats
    outside: Floats | None

    def scaled(self, inside: Floats, outside: float) -> Floats:
        """Rows (r, k + d), or (r, k), of the coordinates times a factor each, and one for all that is outside.

        Their inner products are those of the rows times a matrix with these factors in the basis.
        """
        own: Floats = self.inside * inside
        return own if self.outside is None else np.hstack([own, outside * self.outside])


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """Second moment of the inputs x of a module, per token.

    Attributes
    ----------
    tokens : number of tokens that it is the mean over
    mean : (d,) mean of x
    values : (k,) leading eigenvalues of C, descending
    vectors : (d, k) their eigenvectors, orthonormal
    trace : of C, the mean of ||x||^2
    squares : ``||C||_F^2``; None where C was only sketched
    missed : by how much the sum of the eigenvalues may be too low: 0 where C was summed up in full
    """

    tokens: int
    mean: Floats
    values: Floats
    vectors: Floats
    trace: float
    squares: float | None = None
    missed: float = 0.0

    @property
    def d(self) -> int:
        """Dimension of the inputs."""
        return len(self.mean)

    @property
    def k(self) -> int:
        """Number of eigenpairs."""
        return len(self.values)

    @property
    def rest(self) -> float:
        """Trace outside the eigenpairs."""
        return 0.0 if self.k == self.d else max(0.0, self.trace - float(self.values.sum()))

    @property
    def floor(self) -> float:
        """Eigenvalue that every direction outside the eigenpairs counts with: the mean of theirs."""
        return self.rest / (self.d - self.k) if self.k < self.d else 0.0

    @property
    def mean_share(self) -> float:
        """Share of the energy ``E||x||^2`` that lies along the mean of x, in [0, 1]; NaN where every x is zero."""
        return min(1.0, float(self.mean @ self.mean) / self.trace) if self.trace > 0 else math.nan

    @property
    def effective_dimension(self) -> float:
        """Participation ratio ``tr(C)^2 / ||C||_F^2``, in [1, d]; without `squares` its largest possible value."""
        squares = self.squares
        if squares is None:
            squares = float(self.values @ self.values) + (self.d - self.k) * self.floor**2
        return self.trace**2 / squares if squares > 0 else math.nan

    @property
    def decay(self) -> float:
        """Exponent p of the power law ``k ** -p`` that fits the leading 64 eigenvalues; NaN with fewer than three.

        By least squares of logarithms in which every octave counts the same.
        """
        above = self.values[self.values > _NOTHING * self.values[:1].sum()][:_FITTED]
        if len(above) < 3:
            return math.nan
        k = np.arange(1.0, len(above) + 1)
        x, y = np.log(k), np.log(above)
        x = x - (x / k).sum() / (1 / k).sum()
        return -float((x / k) @ y / ((x / k) @ x))

    @cached_property
    def _basis(self) -> Floats:
        return np.ascontiguousarray(self.vectors, dtype=np.float64)

    def coordinates(self, rows: Floats) -> Coordinates:
        """Coordinates of rows (r, d) along the eigenvectors, and what lies outside them."""
        inside = rows @ self._basis
        return Coordinates(inside, None if self.k == self.d else rows - inside @ self._basis.T)

    def inner(self, first: Floats, second: Floats) -> Floats:
        """``first @ C @ second.T`` of rows (r, d) and (s, d), shape (r, s)."""
        one, other = first @ self._basis, second @ self._basis
        found: Floats = (one * (self.values - self.floor)) @ other.T
        return found + self.floor * (first @ second.T) if self.floor else found

    def through(self, V: Floats) -> Floats:
        """``v.T @ C @ v`` of every column v of V (d, n), shape (n,): the mean square of the input along it."""
        inside = (self._basis.T @ V) ** 2
        found: Floats = (self.values - self.floor) @ inside + self.floor * np.sum(V**2, axis=0)
        return np.maximum(found, 0.0)


def leading_pairs(C: Floats, k: int) -> tuple[Floats, Floats]:
    """The k largest eigenvalues of a positive semidefinite matrix, descending, and their eigenvectors (d, k).

    Notes
    -----
    Dense up to d = 1024 or where more than half is wanted; beyond it the leading eigenspace is found by Krylov steps in
    float32 and what C does to it in float64, so that an eigenvalue is too low by about the square of the angle missed.
    """
    d = len(C)
    if d <= _DENSE or 2 * k > d:
        values, vectors = lapack.eigh(C)
        return np.maximum(values[:k], 0.0), vectors[:, :k]
    lapack.refuse(C, name="the second moment")
    size = float(np.abs(C.diagonal()).max(initial=0.0))
    if size == 0:
        return np.zeros(k), np.eye(d, k)
    Q, _ = lapack.qr(leading((C / size).astype(np.float32), k, tol=_FINEST).V)
    values, P = lapack.eigh(Q.T @ C @ Q)
    return np.maximum(values, 0.0), Q @ P


def nystrom(Y: Floats, omega: Floats, k: int) -> tuple[Floats, Floats]:
    """The k largest eigenvalues of a positive semidefinite C and their eigenvectors, from ``Y = C @ omega`` alone.

    Parameters
    ----------
    Y, omega : (d, l) with l > k

    Notes
    -----
    The approximation lies below C, so that ``tr(C)`` minus the sum of all its eigenvalues bounds its error.

    References
    ----------
    Tropp, Yurtsever, Udell & Cevher 2017, Fixed-rank approximation of a positive-semidefinite matrix from streaming
    data, algorithm 3.

    Examples
    --------
    >>> C = np.diag([4.0, 2.0, 0.0])
    >>> omega = np.eye(3)[:, :2]
    >>> nystrom(C @ omega, omega, 1)[0].round(6)
    array([4.])
    """
    shift = math.sqrt(len(Y)) * np.finfo(np.float64).eps * float(np.linalg.norm(Y))
    while True:
        lifted = Y + shift * omega
        core = omega.T @ lifted
        L = lapack.cholesky((core + core.T) / 2)
        if L is not None or shift == 0:
            break
        shift *= 10
    if L is None:  # every input was zero
        return np.zeros(k), np.eye(len(Y), k)
    U, S, _ = lapack.svd(lifted @ lapack.inverse(L).T)
    return np.maximum(S[:k] ** 2 - shift, 0.0), U[:, :k]
