"""How much of a vector lies along any one eigenvector of a large symmetric matrix, without its eigenvectors.

Lanczos from the vector gives the moments of its weights ``(y . u_i)^2`` over the eigenvalues. Whatever matrix has these
moments, no eigenvalue at x carries more than the Christoffel function ``z_1^2 / ||z||^2``, ``z = (T - x)^-1 e_last``;
and a converged eigenvalue of T carries its own weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.triplets import TIED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.geometry.lapack import Floats

__all__ = ["Bounds", "Lanczos", "lanczos"]

_ENDED = 1e-11  # a next vector smaller than this share of the matrix is rounding: the space has ended
_CONVERGED = 1e-6  # residual of an eigenvalue, as a share of it, below which its weight counts as known
_NULL = 1e-12  # eigenvalues below this share of the largest are those of a singular matrix, which no one tells apart
_FIRST = 32  # vectors that there is room for at first
_GRID, _REFINED = (
    12,
    3,
)  # points between two eigenvalues of T; times that the highest of them are looked at more closely


class Bounds(NamedTuple):
    """Limits of the largest weight that one eigenvector carries, and where it lies.

    Attributes
    ----------
    least, most : the largest weight of one eigenvector is between these
    at : eigenvalue of the largest weight that is known, NaN without one
    """

    least: float
    most: float
    at: float


class Lanczos:
    """The Lanczos recurrence of one vector, in float64 with full reorthogonalisation.

    Parameters
    ----------
    start : ndarray, shape (n,)
        Its squared norm is the sum of all weights.
    top : float
        An upper bound of the eigenvalues that can have weight.
    """

    def __init__(self, start: Floats, top: float) -> None:
        norm = float(np.linalg.norm(start))
        self.total, self.top = norm**2, top
        self._Q = np.empty(
            (_FIRST, len(start))
        )  # rows are added in place, and room for as many again when it is full
        self._Q[0] = start / norm if norm else start
        self._alpha: list[float] = []
        self._beta: list[float] = []
        self.ended = norm == 0

    def grow(self, image: Floats, without: Floats) -> None:
        """Take in the image of the last vector; `without` (n, K) are directions that the recurrence is kept off."""
        steps = len(self._alpha) + 1
        Q = self._Q[:steps]
        self._alpha.append(float(image @ Q[-1]))
        for _ in range(2):
            image = image - without @ (without.T @ image)
            image = image - Q.T @ (Q @ image)
        beta = float(np.linalg.norm(image))
        self._beta.append(beta)
        room = len(image) - without.shape[1]
        self.ended = beta <= _ENDED * self.top or steps >= room
        if not self.ended:
            if steps == len(self._Q):
                self._Q = np.concatenate([self._Q, np.empty_like(self._Q)])
            self._Q[steps] = image / beta

    @property
    def last(self) -> Floats:
        """The vector whose image comes next."""
        vector: Floats = self._Q[len(self._alpha)]
        return vector

    def measure(self) -> tuple[Floats, Floats, Floats]:
        """Eigenvalues of T, descending, with the first and last components of its eigenvectors."""
        off = self._beta[:-1]
        T = np.diag(self._alpha) + np.diag(off, -1) + np.diag(off, 1)
        nodes, S = lapack.eigh(T)
        return nodes, S[0], S[-1]

    def bounds(self) -> Bounds:
        """Limits of the largest weight."""
        if self.total == 0 or not self._alpha:
            return Bounds(0.0, self.total, np.nan)
        nodes, first, last = self.measure()
        beta = 0.0 if self.ended else self._beta[-1]
        weights, residuals = self.total * first**2, beta * np.abs(last)
        known = (nodes > _NULL * self.top) & (residuals <= _CONVERGED * nodes)
        together = _together(nodes, np.where(known, weights, 0.0))
        best = int(np.argmax(together))
        least, at = float(together[best]), float(nodes[best]) if together[best] > 0 else np.nan
        if self.ended:
            return Bounds(least, least, at)
        one = self.total * _highest(nodes, first, last, floor=_NULL * self.top, top=self.top)
        # of a span of several eigenvectors the function bounds each, and their weights add up
        span = _together(nodes, np.where(nodes > _NULL * self.top, weights, 0.0)).max()
        return Bounds(least, max(one, float(span), least), at)


def lanczos(
    products: Callable[[Floats], Floats],
    spaces: Sequence[Lanczos],
    without: Floats,
    *,
    steps: int,
    done: Callable[[int], bool],
    every: int = 8,
) -> None:
    """Grow several recurrences together, so that they share each product with the matrix.

    Parameters
    ----------
    products : function
        ``X (n, b) -> N X``.
    done : function
        Whether the recurrence of a number needs no further step; asked `every` few steps.
    """
    going = [n for n, each in enumerate(spaces) if not each.ended]
    for step in range(steps):
        if not going:
            return
        images = products(np.stack([spaces[n].last for n in going], axis=1))
        for n, image in zip(going, images.T, strict=True):
            spaces[n].grow(image, without)
        ask = (step + 1) % every == 0
        going = [n for n in going if not spaces[n].ended and not (ask and done(n))]


def _together(nodes: Floats, weights: Floats) -> Floats:
    """The weights, those of eigenvalues that count as one added up."""
    first = np.concatenate([[0], np.flatnonzero(nodes[:-1] - nodes[1:] > 2 * TIED * nodes[:-1]) + 1])
    counts = np.diff(np.append(first, len(nodes)))
    result: Floats = np.repeat(np.add.reduceat(weights, first), counts)
    return result


def christoffel(x: Floats, nodes: Floats, first: Floats, last: Floats) -> Floats:
    """``z_1^2 / ||z||^2`` with ``z = (T - x)^-1 e_last`` at each x, from T's eigenvalues and eigenvectors' ends.

    Notes
    -----
    ``|z_1|`` is a sum of products of norm at most ``||z||``, so that the quotient is right to rounding wherever it is
    not tiny; the forward recurrence of the orthogonal polynomials is not, once an eigenvalue has converged.

    Examples
    --------
    One eigenvalue carries all: T = (2).

    >>> christoffel(np.array([2.0, 3.0]), np.array([2.0]), np.array([1.0]), np.array([1.0]))
    array([1., 1.])
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        parts = last / (nodes - x[:, None])
        scale = np.abs(parts).max(axis=1, keepdims=True)
        parts = parts / scale
        value = (parts @ first) ** 2 / (parts**2).sum(axis=1)
    hit = np.argmin(np.abs(nodes - x[:, None]), axis=1)
    result: Floats = np.where(np.isfinite(value), value, first[hit] ** 2)
    return result


def _highest(nodes: Floats, first: Floats, last: Floats, *, floor: float, top: float) -> float:
    """Largest value of the Christoffel function between `floor` and `top`, on a grid that is refined at its peaks."""
    kept = nodes[nodes > floor]
    if not len(kept):
        return 0.0
    # between two eigenvalues of T, and from the first up to where the matrix ends
    ends = np.concatenate([[max(top, kept[0])], kept])
    share = (1 - np.cos(np.pi * np.arange(_GRID) / _GRID)) / 2
    grid = np.append((ends[:-1, None] + share * (ends[1:] - ends[:-1])[:, None]).ravel(), kept[-1])
    for _ in range(_REFINED):
        values = christoffel(grid, nodes, first, last)
        best = np.sort(np.argsort(values)[-6:])
        near = np.concatenate(
            [np.linspace(grid[max(n - 1, 0)], grid[min(n + 1, len(grid) - 1)], 9) for n in best]
        )
        grid = np.unique(np.concatenate([near, grid[best]]))
        grid = grid[::-1]
    return float(
        max(christoffel(grid, nodes, first, last).max(), values.max(), (first[nodes > floor] ** 2).max())
    )
