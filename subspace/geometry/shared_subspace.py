"""The subspace that a library shares: how few directions hold its updates, and how few would hold random ones.

Updates of low rank lie in few directions whatever they learned, so the numbers stand with those of random directions
that have the same strengths. They come from the products of the stacked directions, or from the (d, d) moment where the
directions are more than the dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["SharedSubspace", "residual_of_random", "shared_subspace"]

_HELD = 0.9
_NARROW = 0.5  # of the dimension: a library with so many directions holds half of any random direction


class SharedSubspace(NamedTuple):
    """How concentrated the directions of a library are, in one module and side.

    Attributes
    ----------
    directions : int
        How many directions hold 90 % of all energy.
    directions_random : float
        Mean of the same over random directions with the same strengths.
    top : int
        A number of leading directions: the median rank of the adapters.
    share : float
        Share of all energy in the `top` leading directions, in [0, 1].
    share_random : float
        Mean of the same over random directions with the same strengths.
    directions_error, share_error : float
        Standard errors of the two means of random directions.
    total : int
        Number of directions of all adapters together.
    d : int
        Dimension that they lie in.
    residual : float
        What a random unit vector has left outside of so many random directions, ``sqrt(1 - total / d)``; 0 where they
        are as many as the dimension.
    narrow : bool
        Whether `total` is at least half of `d`: the library then holds half of anything, and little can be concluded.
    """

    directions: int
    directions_random: float
    top: int
    share: float
    share_random: float
    directions_error: float
    share_error: float
    total: int
    d: int
    residual: float
    narrow: bool


def shared_subspace(
    directions: Sequence[Any],
    strengths: Sequence[Any] | None = None,
    *,
    others: Sequence[Any] | None = None,
    draws: int = 5,
    seed: int = 0,
) -> SharedSubspace:
    """How many directions hold 90 % of a library's updates, beside random directions of the same strengths.

    Parameters
    ----------
    directions : sequence of array_like, shapes (k_i, d)
        Orthonormal rows, one array per adapter.
    strengths : sequence of array_like, shapes (k_i,), optional
        Singular values that belong to them; each adapter's are divided by their norm, so that each counts the same.
        None: every direction has the strength 1.
    others : sequence of array_like, shapes (k_i, d'), optional
        Orthonormal rows of the other side of the same updates ``others.T @ diag(strengths) @ directions``. With them
        the mean update of the library is taken out of each first, so that what is left is how the updates differ.
    draws : int
        Libraries of random directions, at least 2.
    seed : int

    Returns
    -------
    SharedSubspace

    Raises
    ------
    ShapeError
        If there is no direction, or the shapes do not fit together.

    Notes
    -----
    With M directions in all and R of shape (M, d) all of them as rows, energies are the eigenvalues of
    ``R.T @ S**2 @ R``; with the mean D of N updates out, of ``R.T @ S**2 @ R - N * D.T @ D``. They are those of an
    (M, M) matrix where M < d. O(M d min(M, d)), as much for each draw, and as much memory as R.

    References
    ----------
    Kaushik et al., arXiv 2512.05117, for subspaces of many adapters that are called universal.

    Examples
    --------
    >>> found = shared_subspace([np.eye(2, 50)] * 9)
    >>> found.directions, found.share, found.directions_random
    (2, 1.0, 13.6)
    """
    stack, S, sizes = _stacked(directions, strengths)
    other = None if others is None else _stacked(others, strengths)[0]
    if other is not None and len(other) != len(stack):
        raise ShapeError(
            f"Sides that do not fit together: {len(stack)} directions and {len(other)} of the other side"
        )
    top = int(np.median(sizes))
    own = _counts(_energies(stack, S, other, len(sizes)), top)
    rng = np.random.default_rng(seed)
    random = np.array(
        [
            _counts(
                _energies(
                    _random(sizes, stack.shape[1], rng),
                    S,
                    None if other is None else _random(sizes, other.shape[1], rng),
                    len(sizes),
                ),
                top,
            )
            for _ in range(draws)
        ]
    )
    error = random.std(axis=0, ddof=1) / math.sqrt(draws)
    M, d = stack.shape
    return SharedSubspace(
        int(own[0]), float(random[:, 0].mean()), top, own[1], float(random[:, 1].mean()), float(error[0]),
        float(error[1]), M, d, residual_of_random(M, d), M / d >= _NARROW,
    )  # fmt: skip


def residual_of_random(total: int, d: int) -> float:
    """Length of a random unit vector of R^d outside the span of `total` random directions, ``sqrt(1 - total / d)``.

    Examples
    --------
    >>> residual_of_random(36, 100), residual_of_random(200, 100)
    (0.8, 0.0)
    """
    return math.sqrt(max(0.0, 1 - total / d))


def _stacked(directions: Sequence[Any], strengths: Sequence[Any] | None) -> tuple[Floats, Floats, list[int]]:
    """All directions as rows, their strengths, and how many each adapter has; adapters without one are left out."""
    blocks = [lapack.as_float64(block, name="the directions of an adapter") for block in directions]
    given = [np.ones(len(block)) for block in blocks] if strengths is None else strengths
    pairs = [(b, np.asarray(s, dtype=float)) for b, s in zip(blocks, given, strict=True) if len(b)]
    if not pairs or len({b.shape[1] for b, _ in pairs}) != 1 or any(len(b) != len(s) for b, s in pairs):
        shapes = sorted({b.shape for b in blocks})
        raise ShapeError(
            f"Directions that cannot be stacked: shapes {shapes}; give (k, d) and k strengths each"
        )
    scaled = [s if strengths is None else s / np.linalg.norm(s) for _, s in pairs]
    return np.vstack([b for b, _ in pairs]), np.concatenate(scaled), [len(b) for b, _ in pairs]


def _energies(R: Floats, S: Floats, L: Floats | None, N: int) -> Floats:
    """Energies of the directions of a library, descending, those of its mean taken out where `L` is given."""
    M, d = R.shape
    weighted = S[:, None] * R
    if d < M:
        moment = weighted.T @ weighted
        if L is not None:
            mean = L.T @ weighted  # N times the mean update, (d', d)
            moment -= mean.T @ mean / N
    elif L is None:
        moment = weighted @ weighted.T
    else:
        moment = _centred(R, S, L, N)
    return np.maximum(lapack.eigvalsh(moment), 0.0)


def _centred(R: Floats, S: Floats, L: Floats, N: int) -> Floats:
    """An (M, M) matrix with the energies of the centred updates: ``H C H``, H the root of the products of R's rows."""
    values, V = lapack.eigh(R @ R.T)
    H = V * np.sqrt(np.maximum(values, 0.0))
    C = np.diag(S**2) - S[:, None] * (L @ L.T) * S / N
    moment: Floats = H.T @ C @ H
    return (moment + moment.T) / 2


def _random(sizes: Sequence[int], d: int, rng: np.random.Generator) -> Floats:
    """As many orthonormal rows per adapter as it has, of random spans of R^d."""
    runs = ((k, len(list(run))) for k, run in groupby(sizes))
    spans = ((k, lapack.qr(rng.standard_normal((n, d, k)))[0]) for k, n in runs)
    return np.vstack([Q.swapaxes(1, 2).reshape(-1, d) for _, Q in spans])


def _counts(energies: Floats, top: int) -> tuple[int, float]:
    """How many leading directions hold 90 %, and the share of the `top` first."""
    held = np.cumsum(np.sort(energies)[::-1])
    if held[-1] <= 0:
        return 0, math.nan
    held = held / held[-1]
    return int(np.searchsorted(held, _HELD - 1e-12) + 1), float(held[min(top, len(held)) - 1])
