"""Leading singular directions of a dense matrix as a frame, by the smaller Gram matrix where that is exact enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.frame import Frame
from subspace.geometry.gram import EPS, gram, scaled_back

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["dense_frame", "rounding_noise"]

_GRAM_IS_ENOUGH = (
    2.0**-30
)  # the Gram route loses directions below sqrt(EPS) * sigma_1, float32 noise hides them


def dense_frame(
    M: Any, *, side: str = "right", k: int | None = None, resolution: float = EPS, noise: float | None = None
) -> Frame:
    """Singular directions of a matrix on one side, by descending singular value.

    Parameters
    ----------
    M : array_like, shape (m, n)
    side : {"left", "right"}
        Directions in R^m or in R^n.
    k : int, optional
        How many at most; all of them by default.
    resolution : float
        Relative unit of the stored values.
    noise : float, optional
        Singular values up to this are noise, and their directions are cut; by default `rounding_noise` of the matrix.

    Returns
    -------
    Frame
        ``k = 0`` for a zero matrix.

    Raises
    ------
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    One symmetric product and one eigenproblem of size min(m, n); a float64 matrix takes a full SVD instead, since
    its small directions may be meaningful.

    Examples
    --------
    >>> dense_frame([[0.0, 2.0, 0.0], [0.0, 0.0, 5.0]], side="right").S
    array([5., 2.])
    """
    X = lapack.as_float64(M, name="M")
    X = X.T if side == "left" else X
    frame = _by_svd(X, resolution) if resolution < _GRAM_IS_ENOUGH else _by_gram(X, resolution)
    noise = rounding_noise(X, resolution) if noise is None else noise
    cut = int(np.count_nonzero(max(noise, max(X.shape) * EPS * frame.S.max(initial=0.0)) < frame.S))
    keep = cut if k is None else min(k, cut)
    return Frame(frame.X, frame.C[:, :keep], frame.S[:keep], resolution)


def rounding_noise(M: Floats, resolution: float) -> float:
    """Spectral norm of the rounding of stored numbers: singular values below it are not data.

    Parameters
    ----------
    M : ndarray, shape (m, n)
        The stored values.
    resolution : float
        Relative unit of the stored values: each is off by up to half of it.

    Notes
    -----
    Independent errors proportional to the entries have a spectral norm of about the largest row norm plus the largest
    column norm of their standard deviations, ``resolution / sqrt(12) * abs(M)``; the bound here is sqrt(3) times that.

    References
    ----------
    Bandeira & van Handel 2016, Ann. Probab. 44:2479, for the norm of a random matrix with independent entries.

    Examples
    --------
    >>> rounding_noise(np.array([[3.0, 4.0]]), 0.5)
    2.25
    """
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", M, M), np.einsum("ij,ij->j", M, M)
    rows, columns = (float(np.sqrt(each.max(initial=0.0))) for each in squares)
    if not np.isfinite(rows + columns):
        largest = float(np.abs(M).max())
        if not np.isfinite(largest):
            return np.inf  # no value stands above it; what factors the matrix refuses it
        return rounding_noise(M / largest, resolution) * largest
    return resolution / 2 * (rows + columns)


def _by_svd(X: Any, resolution: float) -> Frame:
    _, S, Vh = lapack.svd(X)
    return Frame(Vh, np.eye(len(S)), S, resolution)


def _by_gram(X: Any, resolution: float) -> Frame:
    wide = X.shape[0] <= X.shape[1]
    rows, K, exponent = gram(X if wide else X.T)
    if K is None:
        return Frame(X, np.zeros((X.shape[0], 0)), np.zeros(0), resolution)
    values, P = lapack.eigh(K)
    keep = values > EPS * values[0] * len(values)
    S = np.sqrt(values[keep])
    if wide:
        return Frame(rows, P[:, keep] / S, scaled_back(S, exponent), resolution)
    return Frame(np.ascontiguousarray(P[:, keep].T), np.eye(len(S)), scaled_back(S, exponent), resolution)
