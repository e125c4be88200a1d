"""Groups of adapters that began at one random start, from the row alignment of all pairs.

In a library of N there are N^2 / 2 pairs, so what hardly ever happens to one pair happens somewhere: the bound on z
grows with their number, and two groups are one only if most pairs between them say so.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry.library_null import similarities
from subspace.geometry.row_alignment import Alignment, start_verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["StartGroups", "groups_of", "start_bound", "start_groups"]

_LEVEL = 0.01  # probability that any two adapters of the library with different starts are put together


class StartGroups(NamedTuple):
    """Which adapters began at one start.

    Attributes
    ----------
    groups : list of tuple of int
        Of two adapters or more, each ascending, the largest group first.
    untestable : tuple of int
        Adapters for which no pair could have shown a common start: r = 1 throughout, or too few rows and modules.
    """

    groups: list[tuple[int, ...]]
    untestable: tuple[int, ...]


def start_groups(z: Any, largest: Any, r: Any, *, level: float = _LEVEL) -> StartGroups:
    """Groups of adapters that began at one random start.

    Parameters
    ----------
    z, largest, r : array_like, shape (N, N)
        The fields of `Alignment` of every pair, over its modules (`row_alignment.combined`). Symmetric; the diagonal is
        not read. NaN in `z` where a pair cannot be tested.
    level : float
        In (0, 1): probability that a library of adapters with different starts has any group.

    Raises
    ------
    ShapeError
        If `z` is not square.

    Notes
    -----
    A pair has a common start if `start_verdict` says so and z reaches `start_bound` at ``level / pairs``. Groups are
    the connected components of these pairs, divided (average linkage) wherever half of the pairs between two parts, or
    more, do not pass: one false pair joins no two groups. Pairs that cannot be tested count as half a pair.

    Examples
    --------
    >>> z = np.array([[0, 18.0, 0.3], [18.0, 0, -1], [0.3, -1, 0]])
    >>> start_groups(z, np.full((3, 3), 24.2), np.full((3, 3), 96))
    StartGroups(groups=[(0, 1)], untestable=())
    """
    z = similarities(z)
    largest, r = np.asarray(largest, dtype=float), np.asarray(r, dtype=float)
    N = len(z)
    q = level / max(N * (N - 1) // 2, 1)
    known = ~np.isnan(z)
    linked = np.where(known, 0.0, np.nan)
    lowest = _normal(q)
    for i, j in np.argwhere(np.triu(known & (np.nan_to_num(z) >= lowest))):
        pair = Alignment(float(z[i, j]), float(largest[i, j]), int(r[i, j]))
        if start_verdict(pair) == "common" and pair.z >= start_bound(pair.largest, pair.r, q):
            linked[i, j] = linked[j, i] = 1.0
    able = known & (largest >= lowest)
    return StartGroups(groups_of(linked), tuple(int(n) for n in np.flatnonzero(~able.any(axis=1))))


def start_bound(largest: float, r: int, q: float) -> float:
    """The z that two adapters with different starts exceed with probability `q` at most.

    Parameters
    ----------
    largest, r : of the pair's `Alignment`
    q : float
        In (0, 1).

    Notes
    -----
    The larger of two tails. With much in common, spread over the rows, z is normal: the trace of a random orthogonal
    matrix is so to far beyond any q. With all that two adapters have in common in one row of each module, z is a count:
    of m modules with r' rows each, a binomial number with probability 1 / r' have it in rows of one number, which adds
    ``sqrt(r' - 1)`` each, the others ``-1 / sqrt(r' - 1)``, over ``sqrt(m)``. m and r' follow from `largest` and `r`,
    for equal ranks exactly.

    Examples
    --------
    >>> round(start_bound(7.0, 8, 1e-3), 2), round(start_bound(7 * 12**0.5, 96, 1e-7), 2)
    (3.09, 6.55)
    """
    return max(_normal(q), _counted(largest, r, q))


@lru_cache
def _normal(q: float) -> float:
    from scipy.special import ndtri

    return float(-ndtri(q))


@lru_cache(maxsize=4096)
def _counted(largest: float, r: int, q: float) -> float:
    """The least z of the counted tail whose probability, and that of all above it, is at most q."""
    from scipy.special import bdtrc

    m = max(round(((math.sqrt(largest**2 + 4 * r) - largest) / 2) ** 2), 1)
    rows = r / m
    if rows <= 1:
        return math.inf
    hits = np.arange(m + 1)
    likely = bdtrc(hits - 1.0, m, 1 / rows) > q  # P(at least so many)
    root = math.sqrt(rows - 1)
    values = (hits * root - (m - hits) / root) / math.sqrt(m)
    return float(np.nextafter(values[likely].max(), math.inf))


def groups_of(linked: Any) -> list[tuple[int, ...]]:
    """Groups of two or more in which most pairs are linked, the largest first.

    Parameters
    ----------
    linked : array_like, shape (N, N)
        Symmetric: 1 linked, 0 not, NaN unknown, which counts as half. The diagonal is not read.

    Examples
    --------
    >>> chain = np.eye(5, k=1) + np.eye(5, k=-1)
    >>> groups_of(chain), groups_of(np.ones((3, 3)))
    ([(0, 1), (2, 3)], [(0, 1, 2)])
    """
    linked = similarities(linked)
    found: list[tuple[int, ...]] = []
    for part in _components(np.nan_to_num(linked) > 0):
        inside = linked[np.ix_(part, part)]
        whole = bool(np.all((inside == 1) | np.eye(len(part), dtype=bool)))
        found += [tuple(part)] if whole else _divided(part, inside)
    return sorted(found, key=lambda group: (-len(group), group))


def _components(edges: NDArray[np.bool_]) -> list[list[int]]:
    """Connected components of two or more nodes."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    if not len(edges):
        return []
    _, labels = connected_components(csr_array(edges), directed=False)
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [[int(n) for n in part] for part in parts if len(part) > 1]


def _divided(part: list[int], inside: Floats) -> list[tuple[int, ...]]:
    """A component in parts, most of the pairs between any two halves of which are linked."""
    from subspace.geometry.cluster_tree import cluster_tree, clusters

    tree = cluster_tree(np.where(np.isnan(inside), 0.5, inside))
    return [tuple(part[n] for n in group) for group in clusters(tree, least=0.5 + 1e-9)]
