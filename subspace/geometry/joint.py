"""Several updates of one module together: the products of all their directions, of which every view of a sum is made.

With ``delta_W_i = L_i.T @ diag(s_i) @ R_i`` (orthonormal rows) and all rows stacked, ``P = L @ L.T`` and
``Q = R @ R.T`` hold everything: ``<delta_W_i, delta_W_j>`` is the sum of a block of ``s s.T * P * Q``. Nothing of
d_out x d_in is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import ShapeError

if TYPE_CHECKING:
    from subspace.geometry.canonical import Canonical
    from subspace.geometry.lapack import Floats
    from subspace.geometry.second_moment import SecondMoment

__all__ = ["Joint", "cosines", "crossed_overlaps", "energy_ratio", "energy_ratio_sd", "joint"]


@dataclass(frozen=True, eq=False)
class Joint:
    """N updates of one module of d_out x d_in, each with a weight; K is the sum of their numerical ranks.

    Attributes
    ----------
    left : ndarray, shape (K, d_out)
        Left singular vectors of all as rows, those of an update together.
    right : ndarray, shape (K, d_in)
        Right singular vectors likewise.
    s : ndarray, shape (K,)
        Weight times singular value, over `size`; negative where the weight is.
    of : ndarray, shape (N, K)
        1 where a row belongs to an update, else 0.
    P, Q : ndarray, shape (K, K)
        ``left @ left.T`` and ``right @ right.T``.
    size : float
        Largest ``|weight * sigma|``, so that no product leaves the range of float64; 0 where all updates are zero.
    """

    left: Floats
    right: Floats
    s: Floats
    of: Floats
    P: Floats
    Q: Floats
    size: float

    @property
    def N(self) -> int:
        """Number of updates."""
        return len(self.of)

    @property
    def ranks(self) -> Floats:
        """Numerical rank of each update, shape (N,)."""
        ranks: Floats = self.of.sum(axis=1)
        return ranks

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.left.shape[1], self.right.shape[1]

    def inner(self) -> Floats:
        """Frobenius inner products of all pairs over ``size**2``, shape (N, N)."""
        return self._blocks(np.outer(self.s, self.s) * self.P * self.Q)

    def inner_of_outputs(self, moment: SecondMoment) -> Floats:
        """``E[<delta_W_i x, delta_W_j x>]`` over ``size**2`` on inputs x of that second moment, shape (N, N)."""
        return self._blocks(np.outer(self.s, self.s) * self.P * moment.inner(self.right, self.right))

    def variance_of_outputs(self, moment: SecondMoment) -> Floats:
        """Variance of every entry of `inner_of_outputs` off the diagonal where the left directions are isotropic.

        Notes
        -----
        Of independent Haar-random frames ``E[(u_a . u_b)(u_c . u_d)]`` is ``1 / d_out`` where a = c and b = d, else 0.
        """
        Q = moment.inner(self.right, self.right)
        return self._blocks(np.outer(self.s**2, self.s**2) * Q**2) / self.shape[0]

    def overlaps(self, side: str) -> Floats:
        """phi_full of all pairs on the side "left" or "right", shape (N, N); NaN where one is zero."""
        return self._phi(self._blocks((self.P if side == "left" else self.Q) ** 2), self.ranks, self.ranks)

    def _blocks(self, M: Floats) -> Floats:
        sums: Floats = self.of @ M @ self.of.T
        return sums

    @staticmethod
    def _phi(squares: Floats, first: Floats, second: Floats) -> Floats:
        least = np.minimum.outer(first, second)
        with np.errstate(divide="ignore", invalid="ignore"):
            phi: Floats = np.where(least > 0, np.minimum(squares / least, 1.0), np.nan)
        return phi


def joint(forms: Sequence[Canonical], weights: Sequence[float]) -> Joint:
    """The updates of one module together.

    Parameters
    ----------
    forms : of the updates, N of them
    weights : of each, its scale included; any sign, finite

    Raises
    ------
    ShapeError
        If the updates do not have one shape, or there is not one weight for each.

    Notes
    -----
    Two products of K rows; all that follows is K x K.

    Examples
    --------
    >>> from subspace.geometry.canonical import canonical
    >>> one, other = canonical([[3.0], [0.0]], [[0.0, 1.0]]), canonical([[0.0], [4.0]], [[0.0, 1.0]])
    >>> found = joint([one, other], [1.0, -1.0])
    >>> found.inner() * found.size**2
    array([[ 9.,  0.],
           [ 0., 16.]])
    >>> found.overlaps("left")
    array([[1., 0.],
           [0., 1.]])
    >>> found.overlaps("right")
    array([[1., 1.],
           [1., 1.]])
    """
    shapes = {(form.left.shape[1], form.right.shape[1]) for form in forms}
    if len(shapes) != 1 or len(forms) != len(weights):
        raise ShapeError(
            f"Updates that cannot be added: shapes {sorted(shapes)} and {len(weights)} weights of {len(forms)} updates"
            "; give updates of one module and a weight for each"
        )
    left = np.vstack([form.left[: form.k] for form in forms])
    right = np.vstack([form.right[: form.k] for form in forms])
    own = [weight * form.S for form, weight in zip(forms, weights, strict=True)]
    s = np.concatenate(own)
    of = np.repeat(np.eye(len(forms)), [form.k for form in forms], axis=1)
    size = float(np.abs(s).max(initial=0.0))
    return Joint(left, right, s / size if size else s, of, left @ left.T, right @ right.T, size)


def crossed_overlaps(first: Joint, second: Joint, side: str) -> Floats:
    """phi_full of every update of one module with every update of another, shape (N, M): a control of `overlaps`.

    Parameters
    ----------
    first, second : of modules of the same dimension on that side
    side : "left" or "right"
    """
    rows = [each.left if side == "left" else each.right for each in (first, second)]
    squares = first.of @ (rows[0] @ rows[1].T) ** 2 @ second.of.T
    return Joint._phi(squares, first.ranks, second.ranks)


def cosines(inner: Floats) -> Floats:
    """Signed cosines of all pairs, by their inner products (N, N), in [-1, 1]; NaN where one is zero."""
    norms = np.sqrt(np.maximum(inner.diagonal(), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.clip(inner / np.outer(norms, norms), -1.0, 1.0)
    return np.where(np.isfinite(found), found, np.nan)


def energy_ratio(inner: Floats) -> float:
    """``||sum_i delta_W_i||^2 / sum_i ||delta_W_i||^2`` by the inner products; NaN where all are zero.

    1 where they are orthogonal, above it where they reinforce each other (N where they are equal), below where they
    cancel (0 where their sum is zero).

    Examples
    --------
    >>> energy_ratio(np.ones((2, 2))), energy_ratio(np.eye(2)), energy_ratio(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    (2.0, 1.0, 0.0)
    """
    total = float(inner.trace())
    return max(0.0, float(inner.sum()) / total) if total > 0 else float("nan")


def energy_ratio_sd(inner: Floats, shape: tuple[int, int]) -> float:
    """Standard deviation of `energy_ratio` about 1 where all updates have these norms and are isotropic, exact.

    Notes
    -----
    Cosines of independent isotropic updates have the variance ``1 / (d_out d_in)`` and do not correlate.
    """
    squares, (d_out, d_in) = inner.diagonal(), shape
    total = float(squares.sum())
    pairs = (total**2 - float(squares @ squares)) / 2
    return 2 * float(np.sqrt(max(pairs, 0.0) / (d_out * d_in))) / total if total > 0 else float("nan")
