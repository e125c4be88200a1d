"""Groups of adapters that began at one random start, from the row alignment of all pairs.

In a library of N there are N^2 / 2 pairs, so what hardly ever happens to one pair happens somewhere: the bound on z
grows with their number, and two groups are one only if most pairs between them say so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry.library_null import similarities
from subspace.geometry.row_alignment import common_bound

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
        not read. NaN in `z` where a pair cannot be tested; the others are not read there.
    level : float
        In (0, 1): probability that a library of adapters with different starts has any group.

    Raises
    ------
    ShapeError
        If `z` is not square.

    Notes
    -----
    A pair has a common start if z reaches `common_bound`, as in `start_verdict`, and `start_bound` at
    ``level / pairs``. Groups are
    the connected components of these pairs, divided (average linkage) wherever half of the pairs between two parts, or
    more, do not pass: one false pair joins no two groups. Pairs that cannot be tested count as half a pair.

    Examples
    --------
    >>> z = np.array([[0, 18.0, 0.3], [18.0, 0, -1], [0.3, -1, 0]])
    >>> start_groups(z, np.full((3, 3), 24.2), np.full((3, 3), 96))
    StartGroups(groups=[(0, 1)], untestable=())
    """
    z = similarities(z)
    N = len(z)
    known = ~np.isnan(z)
    bound, testable = _bounds(largest, r, known, level / max(N * (N - 1) // 2, 1))
    linked = np.where(known, (np.nan_to_num(z) >= bound).astype(float), np.nan)
    return StartGroups(groups_of(linked), tuple(int(n) for n in np.flatnonzero(~testable.any(axis=1))))


def _bounds(largest: Any, r: Any, known: NDArray[np.bool_], q: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Per pair the z that shows a common start, and whether the greatest possible z would reach `common_bound`."""
    largest = np.where(known, np.asarray(largest, dtype=float), 0.0)
    r = np.where(known, np.asarray(r, dtype=float), 1.0)
    kinds, where = np.unique(largest + 1j * r, return_inverse=True)
    least = np.array([common_bound(kind.real, int(kind.imag)) for kind in kinds])
    bound = [
        max(start_bound(float(kind.real), int(kind.imag), q), low)
        for kind, low in zip(kinds, least, strict=True)
    ]
    where = where.reshape(known.shape)
    return np.array(bound)[where], known & (largest >= least[where])


def start_bound(largest: float, r: int, q: float) -> float:
    """The z that two adapters with different starts exceed with probability `q` at most.

    Parameters
    ----------
    largest, r : of the pair's `Alignment`
    q : float
        In (0, 1).

    Notes
    -----
    Two things can be large by accident. What two adapters have in common, spread over the rows, gives a normal z: the
    trace of a random orthogonal matrix is normal far beyond any q that matters. If it sits in one row of each module, z
    is a count: h of m modules, with r' rows each, have it in the row of one number, each with probability 1 / r', which
    adds ``sqrt(r' - 1)``, and each of the others ``-1 / sqrt(r' - 1)``, over ``sqrt(m)``. Of both in any proportion
    ``sqrt(z_h**2 + z_normal**2)`` is the most, and the bound is the largest of those whose probabilities have the
    product `q`. m and r' follow from `largest` and `r`, exactly for equal ranks.

    Examples
    --------
    >>> round(start_bound(7.0, 8, 1e-3), 2), round(start_bound(7 * 12**0.5, 96, 1e-7), 2)
    (3.58, 6.69)
    """
    from scipy.special import bdtrc, ndtri

    m = max(round(((math.sqrt(largest**2 + 4 * r) - largest) / 2) ** 2), 1)
    rows = r / m
    if rows <= 1:
        return math.inf
    hits, root = np.arange(m + 1), math.sqrt(rows - 1)
    counted = np.maximum((hits * root - (m - hits) / root) / math.sqrt(m), 0.0)
    likely = bdtrc(hits - 1.0, m, 1 / rows)  # P(at least so many)
    normal = -ndtri(np.minimum(q / np.maximum(likely, q), 0.5))
    return float(np.hypot(counted, normal)[likely > q].max())


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
