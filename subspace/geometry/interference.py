"""Singular task interference (STI) of several updates of one module, and the same of random directions.

Definition and range: ``STI = ||(U.T @ U - I) Sigma (V.T @ V - I)||_1``, U and V the singular vectors of all updates
side by side and Sigma their singular values, in the unit of these and at least 0; 0 where the updates share no
direction on one side. The paper writes a 1-norm and does not say which: here it is
the sum of the absolute values of all entries ("entries"), or the largest absolute column sum ("columns").

References
----------
Gargiulo et al., arXiv 2412.00081, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.errors import ValueRangeError
from subspace.geometry import lapack

if TYPE_CHECKING:
    from subspace.geometry.joint import Joint
    from subspace.geometry.lapack import Floats

__all__ = ["NORMS", "RandomInterference", "interference", "random_interference"]

NORMS = ("entries", "columns")
_ENTRIES = 1 << 14  # entries that are drawn in all, at least: their mean is then known to a few percent
_DRAWS = (4, 256)
_AT_ONCE = 1 << 20  # entries in memory


class RandomInterference(NamedTuple):
    """STI of updates of the same singular values whose directions are random.

    Attributes
    ----------
    mean, sd : over the draws
    draws : how many
    """

    mean: float
    sd: float
    draws: int


def interference(together: Joint, *, norm: str = "entries") -> float:
    """STI of weighted updates, in the unit of their singular values.

    Parameters
    ----------
    together : of which the weights belong to Sigma
    norm : "entries" or "columns", see above

    Raises
    ------
    ValueRangeError
        If `norm` is neither.

    Notes
    -----
    Signs of singular vectors do not matter. Of a singular value that occurs twice in one update the directions are not
    determined, and neither is this number.

    Examples
    --------
    >>> from subspace.geometry.canonical import canonical
    >>> from subspace.geometry.joint import joint
    >>> one = canonical([[3.0], [0.0]], [[0.0, 1.0]])
    >>> interference(joint([one, one], [1.0, 1.0]))
    6.0
    """
    return together.size * float(_norms(together.P, together.s, together.Q, norm))


def random_interference(together: Joint, *, norm: str = "entries", seed: int = 0) -> RandomInterference:
    """STI of updates with the same singular values and isotropic directions on both sides, independent of each other.

    Parameters
    ----------
    together, norm : as `interference` has them
    seed : of the draws

    Notes
    -----
    ``U.T @ U`` is drawn by the Bartlett factor of a Wishart matrix whose diagonal blocks are then orthonormalised,
    which is the exact law of Haar-random frames: O(K^3) a draw, nothing of length d.
    """
    K = len(together.s)
    if K == 0:
        return RandomInterference(0.0, 0.0, 0)
    rng = np.random.default_rng(seed)
    draws = int(np.clip(_ENTRIES // K**2, *_DRAWS))
    ranks = [int(rank) for rank in together.ranks]
    found: list[float] = []
    while len(found) < draws:
        n = min(draws - len(found), max(1, _AT_ONCE // K**2))
        P, Q = (_haar_products(ranks, d, n, rng) for d in together.shape)
        found += [float(each) for each in _norms(P, together.s, Q, norm)]
    return RandomInterference(
        together.size * float(np.mean(found)), together.size * float(np.std(found, ddof=1)), draws
    )


def _norms(P: Floats, s: Floats, Q: Floats, norm: str) -> Floats:
    """The norm of ``(P - I) diag(s) (Q - I)``, of each of a stack."""
    if norm not in NORMS:
        raise ValueRangeError(f"Unknown norm {norm!r}: `norm` is one of {', '.join(NORMS)}")
    eye = np.eye(len(s))
    columns = np.abs(((P - eye) * s) @ (Q - eye)).sum(axis=-2)
    found: Floats = columns.sum(axis=-1) if norm == "entries" else columns.max(axis=-1, initial=0.0)
    return found


def _haar_products(ranks: Sequence[int], d: int, n: int, rng: np.random.Generator) -> Floats:
    """N draws of ``U.T @ U``, U independent Haar-random frames of these ranks in d dimensions, shape (n, K, K)."""
    K = sum(ranks)
    diagonal = np.arange(min(K, d))
    T = np.tril(rng.standard_normal((n, K, len(diagonal))), -1)
    T[:, diagonal, diagonal] = np.sqrt(rng.chisquare(d - diagonal, size=(n, len(diagonal))))
    for start, stop in pairwise(np.cumsum([0, *ranks])):
        # rows of T are the Gaussian vectors of one update in fewer coordinates; their QR is a Haar-random frame
        if stop > start:
            U, R = lapack.qr(T[:, start:stop].swapaxes(1, 2))
            signs = np.sign(np.diagonal(R, axis1=1, axis2=2))
            T[:, start:stop] = (U * signs[:, None]).swapaxes(1, 2)
    products: Floats = T @ T.swapaxes(1, 2)
    return products
