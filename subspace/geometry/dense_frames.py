"""Leading singular directions of a dense matrix as a frame, by the smaller Gram matrix where that is exact enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.frame import Frame
from subspace.geometry.gram import EPS, gram, scaled_back
from subspace.geometry.rounding import float64_noise, row_coupling, stored_noise

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["dense_frame"]

# The Gram route is enough where it moves no singular value by more than a share of the noise, or of itself.
_OF_NOISE, _OF_ITSELF = 1e-3, 1e-10


class _Factored(NamedTuple):
    """Directions ``X.T @ C`` with all their singular values, and whether those come from a Gram matrix."""

    X: Floats
    C: Floats
    S: Floats
    squared: bool


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
        Singular values up to this are noise, and their directions are cut, as are those up to `float64_noise`; by
        default `stored_noise` of the matrix.

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
    One symmetric product and one eigenproblem of size min(m, n), and a full SVD where the wanted directions include
    some that a Gram matrix loses, those below sqrt(eps) * sigma_1.

    Examples
    --------
    >>> dense_frame([[0.0, 2.0, 0.0], [0.0, 0.0, 5.0]], side="right").S
    array([5., 2.])
    """
    X = lapack.as_float64(M, name="M")
    X = X.T if side == "left" else X
    noise = stored_noise(X, resolution) if noise is None else noise
    found = _by_gram(X) if noise > 0 or k is not None else _by_svd(X)
    if found.squared and not _is_enough(found.S, min(X.shape), k, noise):
        found = _by_svd(X)
    above = int(np.count_nonzero(max(noise, float64_noise(X.shape, found.S.max(initial=0.0))) < found.S))
    keep = above if k is None else min(k, above)
    coupling = row_coupling(found.S, X.shape, resolution, squared=found.squared)
    return Frame(found.X, found.C[:, :keep], found.S[:keep], resolution, coupling)


def _is_enough(S: Floats, p: int, k: int | None, noise: float) -> bool:
    """Whether the Gram route has found the wanted ones of `p` directions, exactly enough."""
    if not len(S):
        return True
    wanted = p if k is None else k
    last = S[min(wanted, max(1, int(np.count_nonzero(noise < S)))) - 1]
    lost = len(S) < min(wanted, p) and noise < np.sqrt(p * EPS) * S[0]
    with np.errstate(over="ignore"):
        return not lost and EPS * S[0] * (S[0] / last) <= max(_OF_NOISE * noise, _OF_ITSELF * last)


def _by_svd(X: Floats) -> _Factored:
    _, S, Vh = lapack.svd(X)
    return _Factored(Vh, np.eye(len(S)), S, squared=False)


def _by_gram(X: Floats) -> _Factored:
    wide = X.shape[0] <= X.shape[1]
    rows, K, exponent = gram(X if wide else X.T)
    if K is None:
        return _Factored(X, np.zeros((X.shape[0], 0)), np.zeros(0), squared=True)
    values, P = lapack.eigh(K)
    keep = values > EPS * values[0] * len(values)
    S = np.sqrt(values[keep])
    if wide:
        return _Factored(rows, P[:, keep] / S, scaled_back(S, exponent), squared=True)
    V = np.ascontiguousarray(P[:, keep].T)
    return _Factored(V, np.eye(len(S)), scaled_back(S, exponent), squared=True)
