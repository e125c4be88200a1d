"""Largest |cosine| of directions with any singular vector of a matrix: exactly, or bounded without all its vectors.

Singular vectors of one singular value are arbitrary within their span. Here such a span is one direction, and the
cosine with it is that of the angle to the span. Vectors whose singular value is rounding are nobody's, and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry.spectral_measure import Lanczos, lanczos
from subspace.geometry.triplets import TIED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.geometry.lapack import Floats
    from subspace.geometry.triplets import Triplets

__all__ = ["Cosines", "among_all", "bounded", "chance_largest_cosine"]

_NOISE = 1e-6  # singular values below this share of the largest are rounding of float32, and have no vectors
_CLOSE = 0.01  # an upper and a lower bound nearer than this are one number
_STEPS, _TRIED = 400, 120  # of Lanczos: for the threshold that is asked about, and for the others


@dataclass(frozen=True, eq=False)
class Cosines:
    """The largest |cosine| of each of k directions with a singular vector.

    Attributes
    ----------
    most, least : ndarray, shape (k,)
        The cosine lies between these; they are equal where it is known.
    match : tuple of int or None
        Number of the singular vector that `least` is of, from 1 for the leading one; None where only its singular
        value is known, or where there is none.
    sigma : ndarray, shape (k,)
        Its singular value, NaN without one.
    """

    most: Floats
    least: Floats
    match: tuple[int | None, ...]
    sigma: Floats


def chance_largest_cosine(n: int, d: int) -> float:
    """About the largest |cosine| of an isotropic random direction with n orthonormal vectors, ``sqrt(2 ln n / d)``.

    Parameters
    ----------
    n, d : int
        Number of the vectors and of their dimensions. Never above 1.

    Examples
    --------
    >>> round(chance_largest_cosine(4096, 4096), 3)
    0.064
    """
    return float(min(1.0, np.sqrt(2 * np.log(max(n, 2)) / d)))


def among_all(cosines: Floats, S: Floats) -> Cosines:
    """The largest of all cosines, where all singular vectors are known.

    Parameters
    ----------
    cosines : ndarray, shape (n, k)
        Of each singular vector with each direction.
    S : ndarray, shape (n,)
        Singular values, descending.

    Examples
    --------
    >>> among_all(np.array([[0.6], [0.8]]), np.array([2.0, 1.0])).most
    array([0.8])

    Two vectors of one singular value span a plane, which the direction lies in:

    >>> among_all(np.array([[0.6], [0.8]]), np.array([2.0, 2.0])).most
    array([1.])
    """
    rank = int(np.count_nonzero(_NOISE * S[:1] < S))
    k = cosines.shape[1]
    if rank == 0:
        return Cosines(np.zeros(k), np.zeros(k), (None,) * k, np.full(k, np.nan))
    together = _tied(S[:rank], cosines[:rank])
    best = together.argmax(axis=0)
    # of a span that several vectors share, the nearest vector is named
    match = [
        int(np.argmax(np.where(together[:, n] >= together[b, n], np.abs(cosines[:rank, n]), -1.0)))
        for n, b in enumerate(best)
    ]
    most = np.minimum(together[best, np.arange(k)], 1.0)
    return Cosines(most, most, tuple(n + 1 for n in match), S[match])


def _tied(S: Floats, cosines: Floats) -> Floats:
    """|cosines| with each vector (n, k), those of one singular value together."""
    first = np.concatenate([[0], np.flatnonzero(S[:-1] - S[1:] > TIED * S[:-1]) + 1])
    sums = np.add.reduceat(cosines**2, first, axis=0)
    counts = np.diff(np.append(first, len(S)))
    result: Floats = np.sqrt(np.repeat(sums, counts, axis=0))
    return result


def bounded(
    directions: Floats,
    own: Triplets,
    vectors: Floats,
    products: Callable[[Floats], Floats],
    *,
    threshold: float,
    others: Sequence[float] = (),
) -> Cosines:
    """Bounds of the largest cosine, from the leading singular vectors and, where these do not decide, by Lanczos.

    Parameters
    ----------
    directions : ndarray, shape (d, k)
        Orthonormal.
    own : Triplets
        The leading triplets of W that are converged, not tied with a later one; none is needed.
    vectors : ndarray, shape (d, K)
        Its vectors on the side of the directions.
    products : function
        ``X -> W W.T X`` for left singular vectors, ``W.T W X`` for right ones.
    threshold, others : float
        Cosines that the answer is compared with: the bounds should not have one of them between them. For `others`
        less work is done.

    Notes
    -----
    What the leading vectors leave of a direction bounds its cosine with any other; where that is below the largest
    cosine found among them, the answer is known. Otherwise the rest of the direction starts a Lanczos recurrence, whose
    Christoffel function bounds the weight of every singular vector. The maximum of that function is taken on a grid
    that is refined at its peaks, so this is numerical, not a proof.
    """
    inside = _tied(own.S, vectors.T @ directions) if len(own.S) else np.zeros((1, directions.shape[1]))
    best = inside.argmax(axis=0)
    found = inside.max(axis=0)
    rest = directions - vectors @ (vectors.T @ directions)
    open_ = np.flatnonzero(np.linalg.norm(rest, axis=0) > found)
    top = float(own.S[-1] if len(own.S) else _largest(products, directions)) ** 2
    spaces = [Lanczos(rest[:, n], top) for n in open_]

    def limits(n: int) -> tuple[float, float, float]:
        bounds = spaces[n].bounds()
        known = float(found[open_[n]])
        return max(known, np.sqrt(bounds.least)), max(known, np.sqrt(bounds.most)), bounds.at

    def decided(n: int, thresholds: Sequence[float]) -> bool:
        least, most, _ = limits(n)
        return most - least <= _CLOSE or not any(least < t <= most for t in thresholds)

    lanczos(products, spaces, vectors, steps=_TRIED, done=lambda n: decided(n, (threshold, *others)))
    if not all(decided(n, (threshold,)) for n in range(len(spaces))):
        lanczos(products, spaces, vectors, steps=_STEPS - _TRIED, done=lambda n: decided(n, (threshold,)))
    most, least = found.copy(), found.copy()
    match: list[int | None] = [int(n) + 1 if len(own.S) else None for n in best]
    sigma = own.S[best] if len(own.S) else np.full(len(best), np.nan)
    for n, column in enumerate(open_):
        low, high, at = limits(n)
        if low > found[column]:
            match[column], sigma[column] = None, np.sqrt(at)
        least[column], most[column] = low, high
    return Cosines(np.minimum(most, 1.0), np.minimum(least, 1.0), tuple(match), sigma)


def _largest(products: Callable[[Floats], Floats], X: Floats) -> float:
    """An upper bound of the largest singular value by a few steps of the power method, 10 % added."""
    for _ in range(12):
        X = X / np.linalg.norm(X, axis=0).clip(np.finfo(float).tiny)
        X = products(X)
    return 1.1 * float(np.sqrt(np.linalg.norm(X, axis=0).max()))
