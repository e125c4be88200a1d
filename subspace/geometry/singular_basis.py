"""The singular basis of a matrix and that of the matrix with a change: all of it for small ones, else what leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.change import Changed
from subspace.geometry.frobenius import frobenius
from subspace.geometry.row_chunks import Rows
from subspace.geometry.spectrum import numerical_rank
from subspace.geometry.topk import Leading, leading, project

if TYPE_CHECKING:
    from subspace.geometry.change import Change
    from subspace.geometry.lapack import Floats

__all__ = ["Basis", "both_leading", "changed_exact_basis", "exact_basis", "is_small", "leading_basis"]

_SMALL_SIDE, _SMALL_SIZE = 1024, 1 << 23  # up to here W is factored in full: 64 MB of float64
_TOL = 1e-5  # estimated relative error of the leading part at which the search for it stops


@dataclass(frozen=True, eq=False)
class Basis:
    """Leading singular triplets of a matrix (m, n).

    Attributes
    ----------
    U : ndarray, shape (m, K)
    S : ndarray, shape (K,)
        Descending, none of them zero.
    V : ndarray, shape (n, K)
    after : float
        The singular value after the last of `S`; 0 if there is none.
    norm : float
        Frobenius norm of the matrix.
    fourth_moment : float
        Sum of the fourth powers of all singular values; an estimate unless `exact`.
    error : float
        Estimated relative error of the norm of the leading part; 0 if `exact`.
    exact : bool
        Whether the matrix was factored in full, so that `S` has all singular values but those that are zero.
    """

    U: Floats
    S: Floats
    V: Floats
    after: float
    norm: float
    fourth_moment: float
    error: float
    exact: bool

    def after_first(self, k: int) -> float:
        """The singular value after the k-th."""
        return float(self.S[k]) if k < len(self.S) else self.after

    def rest(self, k: int) -> float:
        """Frobenius norm of the matrix without its leading part of rank k."""
        share = 1 - float(np.sum((self.S[:k] / self.norm) ** 2)) if self.norm > 0 else 0.0
        return self.norm * float(np.sqrt(max(0.0, share)))

    def squares_after(self, k: int) -> tuple[Floats, Floats]:
        """Squares of the singular values after the k-th over that of the first, and how often each occurs.

        There are min(m, n) - k in all. Those beyond `S` are taken for zeros and equal values, of the energy and the
        fourth moment that are left.
        """
        known = (self.S / self.S[0]) ** 2
        left = min(len(self.U), len(self.V)) - len(known)
        energy = (self.rest(len(known)) / self.S[0]) ** 2
        if self.exact or left == 0 or energy == 0:
            return np.append(known[k:], 0.0), np.append(np.ones(len(known) - k), float(left))
        fourth = max(0.0, float((self.fourth_moment**0.25 / self.S[0]) ** 4) - float(np.sum(known**2)))
        value = max(min(fourth / energy, (self.after / self.S[0]) ** 2), energy / left)
        times = energy / value
        return np.append(known[k:], [value, 0.0]), np.append(np.ones(len(known) - k), [times, left - times])


def is_small(shape: tuple[int, int]) -> bool:
    """Whether a matrix of this shape is factored in full."""
    return min(shape) <= _SMALL_SIDE and shape[0] * shape[1] <= _SMALL_SIZE


def exact_basis(W: Any) -> Basis:
    """All singular triplets of a matrix, without those of its null space.

    Parameters
    ----------
    W : ndarray or RowReader, shape (m, n)

    Examples
    --------
    >>> exact_basis(np.diag([2.0, 3.0, 0.0])).S
    array([3., 2.])
    """
    M = Rows(W).dense()
    U, S, Vh = lapack.svd(M)
    rank = numerical_rank(S, longest=max(M.shape))
    with np.errstate(over="ignore"):
        fourth = float(np.sum(S**4))
    return Basis(U[:, :rank], S[:rank], Vh[:rank].T, 0.0, frobenius(S), fourth, 0.0, exact=True)


def changed_exact_basis(W: Any, change: Change) -> Basis:
    """`exact_basis` of the sum of a matrix and a change."""
    return exact_basis(Changed(W, change))


def leading_basis(W: Any, k: int, *, search: Callable[..., Leading] = leading) -> Basis:
    """The k leading singular triplets of a matrix by Krylov iteration, fewer where its rank is lower.

    Parameters
    ----------
    search : called as `leading` is; another may know the answer from an earlier run

    Examples
    --------
    >>> found = leading_basis(np.diag([2.0, 3.0, 1.0]), 2)
    >>> found.S, found.after
    (array([3., 2.]), 1.0)
    """
    return _basis(search(W, k, tol=_TOL))


def _basis(found: Leading) -> Basis:
    return Basis(
        found.U, found.S, found.V, found.sigma_next, found.norm, found.fourth_moment, found.error, exact=False
    )


def both_leading(W: Any, base: Basis, change: Change) -> tuple[Basis, Basis]:
    """The leading triplets of a matrix and of its sum with a change, both within one small space.

    Parameters
    ----------
    W : ndarray or RowReader, shape (m, n)
    base : Basis
        `leading_basis` of `W`.
    change : Change, shape (m, n)

    Notes
    -----
    The space is spanned by the leading vectors of both matrices and by what the change and W make of them, which is
    where a small change turns them to first order. Both matrices are projected on it, so what Krylov iteration leaves
    of an error is the same in both and cancels in their difference. Reads `W` twice more than a second search does.
    """
    found = _basis(leading(Changed(W, change), len(base.S), tol=_TOL))
    unit = change.times(1 / change.norm)
    to_left, to_right = unit.of_right(base.V), unit.of_left(base.U).T
    again_left, again_right = _applied(W, to_right, to_left, over=float(base.S[0]))
    Q_left = _orthonormal([base.U, found.U, to_left, again_left])
    Q_right = _orthonormal([base.V, found.V, to_right, again_right])
    core = project(W, Q_left, Q_right)
    moved = core + change.of_left(Q_left) @ Q_right
    return _within(base, core, Q_left, Q_right), _within(found, moved, Q_left, Q_right)


def _applied(W: Any, V: Floats, U: Floats, *, over: float) -> tuple[Floats, Floats]:
    """``W @ V`` and ``W.T @ U`` over a number, in float64 and one pass."""
    rows = Rows(W)
    left, right = np.empty((rows.shape[0], V.shape[1])), np.zeros((rows.shape[1], U.shape[1]))
    for start, stop, _ in rows.chunks():
        wide = rows.wide(start, stop) / over
        left[start:stop] = wide @ V
        right += wide.T @ U[start:stop]
    return left, right


def _orthonormal(parts: list[Floats]) -> Floats:
    stacked = np.concatenate(parts, axis=1)
    lengths = np.linalg.norm(stacked, axis=0)
    stacked = stacked[:, lengths > 0] / lengths[lengths > 0]
    return lapack.qr(stacked[:, : len(stacked)])[0]


def _within(found: Basis, core: Floats, Q_left: Floats, Q_right: Floats) -> Basis:
    U, S, Vh = lapack.svd(core)
    k = len(found.S)
    return Basis(
        Q_left @ U[:, :k],
        S[:k],
        Q_right @ Vh[:k].T,
        found.after,
        found.norm,
        found.fourth_moment,
        found.error,
        exact=False,
    )
