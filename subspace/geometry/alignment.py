"""A change in the singular basis of the matrix that it is added to: ``U.T @ delta_W @ V``, and what chance gives.

Conventions: `U` (d_out, K) and `V` (d_in, K) are singular vectors of W, from the largest value on; all shares are of
``||delta_W||_F^2`` and lie in [0, 1].

References
----------
The notion of structural alignment is of the notes on resize_lora, github.com/elias-gaeros/resize_lora,
docs/refs/diffw_metrics.md; the principal subspace as in Zhu et al., arXiv 2511.08567.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import ValueRangeError

if TYPE_CHECKING:
    from subspace.geometry.change import Change
    from subspace.geometry.lapack import Floats

__all__ = ["Alignment", "align", "block_mean", "diagonal_mean", "share_mean", "share_sd"]


@dataclass(frozen=True, eq=False)
class Alignment:
    """Shares of ``||delta_W||_F^2``.

    Attributes
    ----------
    left, right : ndarray, shape (K + 1,)
        Share inside the span of the first i columns of `U`, or of `V`; index i, from 0.
    block : ndarray, shape (K + 1,)
        Share inside both: ``||U_i.T @ delta_W @ V_i||_F^2``.
    diagonal : ndarray, shape (K + 1,)
        Share of the first i entries ``u_i.T @ delta_W @ v_i``: what rescales singular values and turns nothing.
    """

    left: Floats
    right: Floats
    block: Floats
    diagonal: Floats


def align(change: Change, U: Floats, V: Floats) -> Alignment:
    """How much of a change lies along which singular vectors of the matrix that it is added to.

    Parameters
    ----------
    change : Change, shape (d_out, d_in), not zero
    U : ndarray, shape (d_out, K)
    V : ndarray, shape (d_in, K)

    Notes
    -----
    Two products of the change with K vectors; for a change of rank r, 2 K r (d_out + d_in) operations.

    Examples
    --------
    >>> from subspace.geometry.change import DenseChange
    >>> align(DenseChange(np.array([[0.0, 1.0], [0.0, 1.0]])), np.eye(2), np.eye(2)).right
    array([0., 0., 1.])
    """
    unit = change.times(1 / change.norm)
    of_left = unit.of_left(U)
    core = of_left @ V
    nested = np.cumsum(np.cumsum(core**2, axis=0), axis=1).diagonal()
    return Alignment(
        _cumulated(np.sum(of_left**2, axis=1)),
        _cumulated(np.sum(unit.of_right(V) ** 2, axis=0)),
        _shares(nested),
        _cumulated(core.diagonal() ** 2),
    )


def _cumulated(energies: Floats) -> Floats:
    return _shares(np.cumsum(energies))


def _shares(ascending: Floats) -> Floats:
    return np.concatenate([[0.0], np.minimum(ascending, 1.0)])


def share_mean(k: int, d: int) -> float:
    """Mean share of any matrix that lies in a random k-dimensional span on one of its sides: ``k / d``, exact.

    Examples
    --------
    >>> share_mean(2, 8)
    0.25
    """
    _require(k, d)
    return k / d


def share_sd(k: int, d: int, concentration: float) -> float:
    """Standard deviation of that share, exact.

    Parameters
    ----------
    k, d : int
        Dimensions of the span, which is Haar-random, and of the space.
    concentration : float
        ``tr((M.T M)^2) / ||M||_F^4`` of the matrix, in [1 / rank, 1].

    Notes
    -----
    The share is ``tr(P N)`` with a Haar projector P of rank k and ``N = M.T M / ||M||_F^2``, whose variance is
    ``2 k (d - k) (d tr(N^2) - 1) / (d^2 (d - 1) (d + 2))``: that of Beta(k / 2, (d - k) / 2) at rank one, and 0 for a
    multiple of the identity.

    Examples
    --------
    >>> round(share_sd(1, 2, 1.0) ** 2, 12)  # cos^2 of a uniform angle
    0.125
    """
    _require(k, d)
    if d in (1, k):
        return 0.0
    variance = 2 * k * (d - k) * max(0.0, d * concentration - 1) / (d**2 * (d - 1) * (d + 2))
    return math.sqrt(variance)


def block_mean(k: int, d_out: int, d_in: int) -> float:
    """Mean of ``||U.T @ M @ V||_F^2 / ||M||_F^2`` over random frames of k columns: ``k^2 / (d_out d_in)``, exact.

    Examples
    --------
    >>> block_mean(2, 4, 8)
    0.125
    """
    _require(k, min(d_out, d_in))
    return k * k / (d_out * d_in)


def diagonal_mean(k: int, d_out: int, d_in: int) -> float:
    """Mean of ``sum_i (u_i.T @ M @ v_i)^2 / ||M||_F^2`` over k columns of random frames: ``k / (d_out d_in)``, exact.

    Notes
    -----
    A column of a Haar-random frame is uniform on the sphere, so ``E[(u.T M v)^2] = ||M||_F^2 / (d_out d_in)`` for each
    of the k pairs. Over all pairs that is one over the longer side.

    Examples
    --------
    >>> diagonal_mean(4, 4, 8)
    0.125
    """
    _require(k, min(d_out, d_in))
    return k / (d_out * d_in)


def _require(k: int, d: int) -> None:
    if not 1 <= k <= d:
        raise ValueRangeError(f"k = {k} is outside 1..{d}, the directions that there are")
