"""How much of single directions lies in a span or in one of several blocks, and what isotropic random ones have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry import lapack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.geometry.lapack import Floats
    from subspace.geometry.second_moment import SecondMoment

__all__ = [
    "block_shares",
    "block_squares",
    "largest_block",
    "output_squares",
    "random_directions",
    "span_shares",
]

_DRAWS = 9999  # of isotropic random directions, for the largest block


def span_shares(V: Floats, Q: Floats) -> Floats:
    """Squared length of every column of V (d, k) within the span of the orthonormal columns of Q (d, m), in [0, 1].

    Examples
    --------
    >>> span_shares(np.eye(3), np.eye(3)[:, :1])
    array([1., 0., 0.])
    """
    inside: Floats = np.sum((Q.T @ V) ** 2, axis=0)
    return np.minimum(inside, 1.0)


def random_directions(d: int, count: int, *, seed: int) -> Floats:
    """Isotropic random unit vectors, the columns of (d, count)."""
    drawn = np.random.default_rng(seed).standard_normal((d, count))
    directions: Floats = drawn / np.linalg.norm(drawn, axis=0)
    return directions


def block_shares(U: Floats, blocks: Sequence[tuple[int, int]]) -> Floats:
    """Squared length of every column of U (d, k) in each block of rows (start, stop), shape (blocks, k)."""
    return np.array([np.sum(U[start:stop] ** 2, axis=0) for start, stop in blocks])


def block_squares(U: Floats, S: Floats, blocks: Sequence[tuple[int, int]]) -> Floats:
    """``||M_h||_F^2`` of the blocks of rows of ``M = U diag(S) V.T``, V orthonormal; with all rows they add up to M's.

    The blocks of columns of M are those of rows of its transpose: give V in the place of U.
    """
    squares: Floats = block_shares(U, blocks) @ S**2
    return squares


def output_squares(
    U: Floats, S: Floats, V: Floats, blocks: Sequence[tuple[int, int]], moment: SecondMoment
) -> Floats:
    """``E[||M_h x||^2]`` of the blocks of rows of ``M = U diag(S) V.T``; they add up to ``E[||M x||^2]``."""
    core = (S[:, None] * moment.inner(V.T, V.T)) * S
    return np.array([np.vdot(U[start:stop] @ core, U[start:stop]) for start, stop in blocks])


def largest_block(count: int, size: int, *, seed: int = 0) -> Floats:
    """The largest share that an isotropic random direction has in one of `count` blocks of `size` coordinates, drawn.

    Examples
    --------
    >>> bool(0.5 < largest_block(2, 8).mean() < 0.65)
    True
    """
    energy = np.random.default_rng(seed).gamma(size / 2, size=(_DRAWS, count))
    largest: Floats = energy.max(axis=1) / energy.sum(axis=1)
    lapack.refuse(largest, name="shares of random directions")
    return largest
