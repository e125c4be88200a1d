"""A span that changes from step to step: how near it is to one span, to the next, and when directions appear in it.

Conventions: a path is an array (T, k, d) of orthonormal rows, those of step t in ``path[t, :counts[t]]`` by descending
singular value and zeros after them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry.chance import phi_mean, phi_quantile, phi_sd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.geometry.lapack import Floats

__all__ = ["Levels", "born", "captured", "isotropic", "path_of", "phi_along"]


class Levels(NamedTuple):
    """phi of isotropic random spans, for each step: NaN where there is no span."""

    mean: Floats
    sd: Floats


def path_of(spans: Sequence[Floats | None], d: int, *, dtype: Any = np.float64) -> tuple[Floats, Any]:
    """Spans as a path, and how many directions each has: none, where it is None.

    Parameters
    ----------
    spans : sequence of ndarray, shapes (k_t, d), or None
    """
    counts = np.array([0 if span is None else len(span) for span in spans], dtype=int)
    path = np.zeros((len(spans), int(counts.max(initial=0)), d), dtype=dtype)
    for t, span in enumerate(spans):
        if span is not None:
            path[t, : len(span)] = span
    return path, counts


def phi_along(first: Floats, first_counts: Any, second: Floats, second_counts: Any) -> Floats:
    """Similarity phi of each step of a path with the same step of another, shape (T,); NaN where one has no direction.

    Parameters
    ----------
    first : ndarray, shape (T, k, d)
    second : ndarray, shape (T, k', d) or (1, k', d)
        One span is compared with all steps.

    References
    ----------
    Hu et al., LoRA, arXiv 2106.09685v2, section 7.2, equation 4.

    Examples
    --------
    >>> e = np.eye(3)
    >>> phi_along(np.stack([e[:2], e[1:]]), np.array([2, 2]), e[None, :1], np.array([1]))
    array([1., 0.])
    """
    G = first @ np.swapaxes(second, 1, 2)
    smaller = np.minimum(first_counts, second_counts)
    squares = np.einsum("tij,tij->t", G, G, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(smaller > 0, np.minimum(squares / smaller, 1.0), np.nan)


def isotropic(first_counts: Any, second_counts: Any, d: int) -> Levels:
    """Mean and standard deviation of `phi_along` for isotropic random spans.

    Examples
    --------
    >>> isotropic(np.array([2, 0]), np.array([4, 4]), 8).mean
    array([0.5, nan])
    """
    pairs = list(zip(*np.broadcast_arrays(first_counts, second_counts), strict=True))
    known = {(i, j): (phi_mean(i, j, d), phi_sd(i, j, d)) for i, j in _whole(pairs) if i and j}
    found = np.array([known.get(pair, (np.nan, np.nan)) for pair in _whole(pairs)]).reshape(-1, 2)
    return Levels(found[:, 0], found[:, 1])


def _whole(pairs: Any) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for i, j in pairs]


def captured(path: Floats, directions: Floats) -> Floats:
    """Squared cosine of each direction with the span of each step, shape (T, K), in [0, 1].

    Parameters
    ----------
    path : ndarray, shape (T, k, d)
    directions : ndarray, shape (K, d)
        Unit vectors.

    Examples
    --------
    >>> captured(np.eye(3)[None, :2], np.eye(3)[1:])
    array([[1., 0.]])
    """
    along = path @ directions.T
    return np.asarray(np.minimum(np.einsum("tkc,tkc->tc", along, along), 1.0))


def born(shares: Floats, counts: Any, d: int, *, level: float) -> Any:
    """First step from which on each direction is in the span to more than chance, shape (K,).

    Parameters
    ----------
    shares : ndarray, shape (T, K)
        Of `captured`; the directions are those of the last step.
    counts : ndarray of int, shape (T,)
        Dimensions of the spans.
    level : float
        A direction is there where its share is above the quantile ``1 - level`` for an isotropic random one.

    Notes
    -----
    "From which on": a direction that is found once and lost again has not come to stay. So it is dated before the last
    step with a probability of `level` at most where no step has anything to do with the last.

    Examples
    --------
    >>> born(np.array([[0.9, 0.0], [0.1, 0.0], [0.9, 0.9], [1.0, 1.0]]), np.array([1, 1, 1, 2]), 3, level=0.5)
    array([2, 2])
    """
    sizes = {int(k): float(phi_quantile(1 - level, 1, int(k), d)) if 0 < k < d else 0.0 for k in set(counts)}
    limits = np.array([sizes[int(k)] for k in counts])
    absent = (shares <= limits[:, None]) | (np.asarray(counts) == 0)[:, None]
    last = len(shares) - 1
    absent[last] = False  # they are its own
    return np.where(absent.any(axis=0), last + 1 - np.argmax(absent[::-1], axis=0), 0)
