"""How far a change moves the singular values of a matrix: ``||sigma(W + M) - sigma(W)||_2 / ||sigma(W)||_2``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry.change import Change, LowRankChange
from subspace.geometry.frobenius import frobenius
from subspace.geometry.row_chunks import Rows
from subspace.geometry.topk import project

if TYPE_CHECKING:
    from subspace.geometry.singular_basis import Basis

__all__ = ["inner", "shift_bounds"]


def shift_bounds(base: Basis, changed: Basis, change: Change, W: Any) -> tuple[float, float]:
    """Lower and upper bound of the normalised spectral shift; the same number twice where both bases are exact.

    Parameters
    ----------
    base, changed : Basis
        Of the matrix and of its sum with the change; the matrix is not zero.
    change : Change
    W : ndarray or RowReader
        The matrix, which is read once unless both are exact.

    Returns
    -------
    low, high : float
        In units of ``||W||_F``; not finite where those are too small.

    Notes
    -----
    Where only k values are known, the rest count as one each: the norm of what is left of `W` and of the sum, by the
    reverse triangle inequality for their vectors of singular values. The sums of squares differ by exactly
    ``2 <W, M> + ||M||_F^2``. The upper bound is Mirsky's, ``||M||_F``. The lower one is as good as the leading values.

    References
    ----------
    Mirsky 1960, Q. J. Math. 11:50, theorem 5.

    Examples
    --------
    >>> from subspace.geometry.change import DenseChange
    >>> from subspace.geometry.singular_basis import exact_basis
    >>> W = np.diag([3.0, 4.0])
    >>> shift_bounds(exact_basis(W), exact_basis(1.5 * W), DenseChange(0.5 * W), W)
    (0.5, 0.5)
    """
    if base.exact and changed.exact:
        size = max(len(base.S), len(changed.S))
        S, moved = (np.pad(each.S, (0, size - len(each.S))) for each in (base, changed))
        with np.errstate(over="ignore"):
            shift = frobenius((moved - S) / base.norm)
        return shift, shift
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return _of_leading(base, changed, change, W)


def _of_leading(base: Basis, changed: Basis, change: Change, W: Any) -> tuple[float, float]:
    k = min(len(base.S), len(changed.S))
    S, moved = base.S[:k] / base.norm, changed.S[:k] / base.norm
    relative = change.norm / base.norm
    rest = max(0.0, 1 - float(np.sum(S**2)))
    grown = (
        2 * inner(W, change) / base.norm / base.norm
        + relative * relative
        - float(np.sum((moved - S) * (moved + S)))
    )
    after = max(0.0, rest + grown)
    # sqrt(after) - sqrt(rest), without cancellation
    of_rest = (after - rest) / (np.sqrt(after) + np.sqrt(rest)) if after + rest > 0 else 0.0
    low = frobenius(np.append(moved - S, of_rest))
    return min(low, relative), relative


def inner(W: Any, change: Change) -> float:
    """Frobenius inner product ``<W, M>`` of a matrix and a change, in one pass over both.

    Examples
    --------
    >>> from subspace.geometry.change import DenseChange
    >>> inner(np.eye(2), DenseChange(np.array([[2.0, 5.0], [5.0, 1.0]])))
    3.0
    """
    if isinstance(change, LowRankChange):
        return float(project(W, change.U, change.Vh.T).diagonal() @ change.S)
    rows = Rows(W)
    return float(
        sum(np.vdot(rows.wide(start, stop), change.rows(start, stop)) for start, stop, _ in rows.chunks())
    )
