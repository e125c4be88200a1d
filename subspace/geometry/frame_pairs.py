"""Two frames and their overlap from one symmetric product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack
from subspace.geometry.frame import Frame, overlap, row_frame
from subspace.geometry.gram import EPS, is_safe, is_well
from subspace.geometry.rounding import row_coupling

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["row_frames"]


def row_frames(
    first: Any, second: Any, *, resolutions: tuple[float, float] = (EPS, EPS)
) -> tuple[Frame, Frame, Floats]:
    """Right singular vectors of two matrices as frames, and the overlap ``G = U_first.T @ U_second``.

    Parameters
    ----------
    first, second : array_like, shapes (r1, d) and (r2, d)
    resolutions : pair of float
        Relative units of the values as stored, for `Frame.ties`.

    Returns
    -------
    first, second : Frame
        Each cut at its numerical rank, k1 and k2.
    G : ndarray, shape (k1, k2)

    Raises
    ------
    ShapeError
        If they are not matrices of real numbers with the same number of columns.
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    The same as two `row_frame` and an `overlap`. One Gram matrix of the stacked rows holds all three products, at half
    the cost of the two matrix products of the overlap. Ill-conditioned matrices take the separate route.

    Examples
    --------
    >>> first, second, G = row_frames([[3.0, 0.0], [0.0, 1.0]], [[0.0, 2.0]])
    >>> first.S, second.S, abs(G)
    (array([3., 1.]), array([2.]), array([[0.],
           [1.]]))
    """
    X, r = _stacked(first, second)
    with np.errstate(all="ignore"):
        K = X @ X.T  # NumPy turns this into a symmetric rank-k update
    blocks = (X[:r], K[:r, :r], resolutions[0]), (X[r:], K[r:, r:], resolutions[1])
    one, other = (_well_conditioned(*block) for block in blocks)
    if one is not None and other is not None:
        return one, other, one.C.T @ K[:r, r:] @ other.C
    one, other = (row_frame(rows, resolution=resolution) for rows, _, resolution in blocks)
    return one, other, overlap(one, other)


def _stacked(first: Any, second: Any) -> tuple[Floats, int]:
    """Rows of both in one float64 array, and how many are of the first."""
    first, second = np.asarray(first), np.asarray(second)
    for M in (first, second):
        if M.ndim != 2 or M.dtype.kind not in "fiu":
            lapack.as_float64(M, name="a factor")
            raise ShapeError(f"Not a matrix: a factor has shape {M.shape}; reshape it")
    if first.shape[1] != second.shape[1]:
        raise ShapeError(
            f"Frames of spaces of different dimensions: {first.shape[1]} and {second.shape[1]}; "
            "compare modules of the same shape"
        )
    rows, d = len(first) + len(second), first.shape[1]
    # columns of B are read as its rows lie in memory
    columns = first.flags.f_contiguous and second.flags.f_contiguous
    X = np.empty((d, rows)).T if columns else np.empty((rows, d))
    with np.errstate(invalid="ignore"):  # a signalling NaN warns here; the finite check names it
        X[: len(first)], X[len(first) :] = first, second
    return X, len(first)


def _well_conditioned(X: Floats, K: Floats, resolution: float) -> Frame | None:
    """The frame of `X` with Gram matrix `K`; None where that is not exact enough, or not finite."""
    if not is_safe(K):
        return None
    values, P = lapack.eigh(K)
    if not is_well(values):
        return None
    S = np.sqrt(values)
    return Frame(X, P / S, S, resolution, row_coupling(S, X.shape, resolution, squared=True), P)
