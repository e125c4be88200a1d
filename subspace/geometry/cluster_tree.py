"""Clusters of adapters: average linkage of similarities, an order of the leaves, and a cut at a stated likeness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry.library_null import similarities

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["ClusterTree", "cluster_tree", "clusters", "excess"]

_ORDERED = 500  # leaves that are put into the best order; the time for more grows with their cube


class ClusterTree(NamedTuple):
    """A hierarchy of N adapters.

    Attributes
    ----------
    merges : ndarray, shape (N - 1, 4)
        As SciPy's `linkage` gives them: the two nodes that are joined, their distance, the number of leaves. The
        distance is 1 minus the mean similarity of the pairs between the two.
    order : tuple of int
        The adapters as they stand along a dendrogram.
    """

    merges: Floats
    order: tuple[int, ...]


def excess(phi: Any, level: Any) -> Floats:
    """Similarity over what it would be anyway, ``(phi - level) / (1 - level)``: 0 at that level, 1 for equal spans.

    Parameters
    ----------
    phi : array_like, shape (N, N)
    level : array_like, broadcast to (N, N)
        phi of isotropic random spans, or of the matched control where there is one. NaN where it is 1.

    Examples
    --------
    >>> excess([[1.0, 0.55]], 0.1)
    array([[1. , 0.5]])
    """
    phi, level = np.asarray(phi, dtype=float), np.asarray(level, dtype=float)
    room = np.where(level < 1, 1 - level, np.nan)
    over: Floats = (phi - level) / room
    return over


def cluster_tree(S: Any) -> ClusterTree:
    """The hierarchy of average linkage of a matrix of similarities.

    Parameters
    ----------
    S : array_like, shape (N, N)
        Symmetric, 1 for equal adapters and 0 for unrelated ones: the cosine of delta_W, or the `excess` of phi. The
        diagonal is not read. NaN, of two adapters without a module in common, counts as 0: it joins nothing.

    Raises
    ------
    ShapeError
        If `S` is not square.

    Notes
    -----
    O(N^2) in time and memory, and O(N^3) for the order of up to 500 leaves, which puts similar ones next to each other.

    Examples
    --------
    >>> tree = cluster_tree([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]])
    >>> tree.merges[:, 2].round(12)
    array([0.1, 1. ])
    """
    S = similarities(S)
    N = len(S)
    if N < 2:
        return ClusterTree(np.empty((0, 4)), tuple(range(N)))
    from scipy.cluster.hierarchy import leaves_list, linkage

    upper = np.triu_indices(N, 1)
    distance = np.maximum(1 - np.nan_to_num(S[upper], nan=0.0), 0.0)
    merges = linkage(distance, "average", optimal_ordering=N <= _ORDERED)
    return ClusterTree(merges, tuple(int(n) for n in leaves_list(merges)))


def clusters(tree: ClusterTree, *, least: float) -> list[tuple[int, ...]]:
    """Clusters of two adapters or more whose mean similarity is at least `least`, the largest first.

    Parameters
    ----------
    tree : ClusterTree
    least : float
        In (0, 1]: the mean similarity of the pairs between the two parts that are joined last.

    Returns
    -------
    list of tuple of int
        Each ascending; who is in none resembles no other so much.

    Notes
    -----
    The cut is one likeness for every library, not one that a library sets for itself (a gap in the tree, a number of
    clusters): that would divide unrelated adapters too. Measured cosines of delta_W: 0.69 and 0.75 for one text, 0.60
    for its words shuffled, 0.27 for other code, at most 0.10 for unrelated text and noise. So 0.5 is "much of the same"
    and 0.15 "in part the same", below which nothing is joined. Of the excess of phi of B at full rank over chance:
    unrelated tasks 0.01 to 0.06, one task 0.32 to 0.66; 0.2 lies between.

    Examples
    --------
    >>> tree = cluster_tree([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]])
    >>> clusters(tree, least=0.15), clusters(tree, least=0.95)
    ([(0, 1)], [])
    """
    N = len(tree.order)
    parts: dict[int, tuple[int, ...]] = {n: (n,) for n in range(N)}
    for n, (first, second, distance, _) in enumerate(tree.merges, start=N):
        if distance > 1 - least + 1e-12 or int(first) not in parts or int(second) not in parts:
            continue
        parts[n] = tuple(sorted(parts.pop(int(first)) + parts.pop(int(second))))
    return sorted((part for part in parts.values() if len(part) > 1), key=lambda part: (-len(part), part))
