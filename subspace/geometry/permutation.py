"""p-values by exchanging labels: layers of one adapter, or adapters among reference adapters.

Each asks whether a similarity stands out among those that would be as likely if the labels meant nothing, so a
p-value is a share of those and cannot fall below its floor, which is returned with it.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["ReferenceP", "layers_p", "reference_p"]

_EXACT = 5040  # permutations of 7 layers
_DRAWS = 999
_ROUNDING = 1e-9  # a similarity so much smaller, relative to the largest, counts as equal


class ReferenceP(NamedTuple):
    """p-values of a pair of adapters among reference adapters, and the least that each can be.

    Attributes
    ----------
    second : float
        Are the reference adapters as similar to the first adapter as the second is?
    first : float
        Are they as similar to the second adapter as the first is?
    pairs : float
        Share of all pairs of adapters, this one included, that are as similar as this one.
    floor : float
        The least value of `second` and `first`: ``1 / (n + 1)`` for n reference adapters.
    floor_pairs : float
        The least value of `pairs`: one over the number of pairs of n + 2 adapters.
    """

    second: float
    first: float
    pairs: float
    floor: float
    floor_pairs: float


def layers_p(M: Any, *, seed: int = 0) -> tuple[float, float]:
    """Probability that layers paired at random are as similar as equal layers, and the least that it can be.

    Parameters
    ----------
    M : array_like, shape (L, L)
        Similarity of layer l of the first adapter (rows) with layer k of the second (columns).
    seed : int
        For the 999 random permutations that stand for all where there are more than 5040 (L > 7).

    Returns
    -------
    p : float
        Share of the permutations pi, the identity among them, with ``mean M[l, pi(l)] >= mean M[l, l]``. NaN if an
        entry of `M` is NaN.
    floor : float
        ``1 / L!``, or 0.001 where permutations are drawn.

    Raises
    ------
    ShapeError
        If `M` is not square.

    Notes
    -----
    Of its nominal size, or less by the steps of p: 0.042 of 0.05 for four layers, none for three. A small p says that
    the layer matters, not that the adapters learned the same: simulated, unrelated learning from inputs of each layer's
    own is rejected at 5 % in 24 % of pairs with 4 layers, 75 % with 12, 98 % with 32 (one matrix of r = 4 a layer).

    Examples
    --------
    >>> p, floor = layers_p(np.eye(4))
    >>> round(24 * p, 12), round(24 * floor, 12)
    (1.0, 1.0)
    """
    M = _square(M)
    L = len(M)
    if math.factorial(L) <= _EXACT:
        orders = np.array(list(permutations(range(L))))
    else:
        drawn = np.random.default_rng(seed).permuted(np.tile(np.arange(L), (_DRAWS, 1)), axis=1)
        orders = np.vstack([np.arange(L), drawn])
    sums = M[np.arange(L), orders].sum(axis=1)
    return _share(sums, sums[0]), 1 / len(orders)


def reference_p(S: Any) -> ReferenceP:
    """Probability that a pair of adapters is as similar as it is, if they are no different from reference adapters.

    Parameters
    ----------
    S : array_like, shape (n + 2, n + 2)
        Symmetric, similarities of all adapters: the pair first, then n reference adapters. The diagonal is not read.

    Returns
    -------
    ReferenceP
        NaN where a similarity that is needed is NaN.

    Raises
    ------
    ShapeError
        If `S` is not square or has fewer than two rows.

    Notes
    -----
    Of their nominal size, or less by the steps of p, though pairs that share an adapter are dependent, as long as the
    reference adapters are exchangeable with the pair: trained as long, with one rank and one kind of start. Adapters
    that moved farther from their start are more similar to each other whatever they learn: simulated, with 19
    references and unrelated tasks, a nominal 5 % is 71 % (`pairs` 89 %) for a pair moved by 173 % of its start among
    references moved by 35 %, and 1 % (0 %) the other way round.

    Examples
    --------
    >>> p = reference_p([[1, 0.9, 0.1, 0.2], [0.9, 1, 0.2, 0.1], [0.1, 0.2, 1, 0.3], [0.2, 0.1, 0.3, 1]])
    >>> round(6 * p.pairs, 12), round(3 * p.second, 12), round(3 * p.floor, 12)
    (1.0, 1.0, 1.0)
    """
    S = _square(S)
    N = len(S)
    if N < 2:
        raise ShapeError(f"No pair of adapters: similarities of shape {S.shape}; give those of two or more")
    pairs = S[np.triu_indices(N, 1)]
    return ReferenceP(
        second=_share(S[0, 1:], S[0, 1]),
        first=_share(np.delete(S[1], 1), S[0, 1]),
        pairs=_share(pairs, S[0, 1]),
        floor=1 / (N - 1),
        floor_pairs=1 / len(pairs),
    )


def _square(M: Any) -> Floats:
    square = lapack.as_float64(M, name="the matrix of similarities")
    if square.ndim != 2 or square.shape[0] != square.shape[1] or not len(square):
        raise ShapeError(
            f"Not a square matrix of similarities: shape {square.shape}; give one row and column each"
        )
    return square


def _share(values: NDArray[np.float64], observed: float) -> float:
    """Share of the values that are at least the observed one, which is among them."""
    if np.isnan(values).any():
        return math.nan
    slack = _ROUNDING * float(np.abs(values).max())
    return float(np.mean(values >= observed - slack))
