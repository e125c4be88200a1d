"""Which adapter of a library continued from which, as far as their numbers and the steps in their names carry it.

Checkpoints of one run begin at one start and lie near each other along a path; two runs from one start do not come so
near, whatever they learned. Where the order is not known an edge has none, and where that is not enough there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from subspace.analysis.duplicates import SAME_UPDATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["Edge", "lineage"]

_SAME_RUN = 0.9  # cosine of neighbouring checkpoints; two runs of one task from one start stay below
_SAME_FOLDER = (
    0.5  # where their names say that they are checkpoints of one run, and the start does not deny it
)
_ON_THE_WAY = 0.5  # of a squared distance that has to add up where one checkpoint lies on the way to another
_CONTAINS = 1.1  # times the earlier update's length: the component along it of one that holds it and more


Kind: TypeAlias = Literal["continued", "branch", "unordered"]


class Edge(NamedTuple):
    """Two adapters of one run.

    Attributes
    ----------
    earlier, later : int
        Numbers of the adapters; of kind "unordered" the smaller number first.
    kind : str
        "continued": the later one was trained on from the earlier one. "branch": likewise, but another went on from
        there another way, and straighter. "unordered": one continued from the other, or both from an ancestor; the
        numbers cannot tell which.
    """

    earlier: int
    later: int
    kind: Kind


def lineage(
    cosine: Any,
    norms: Any,
    groups: Sequence[Sequence[int]],
    *,
    steps: Sequence[int | None] | None = None,
    runs: Sequence[object] | None = None,
) -> list[Edge]:
    """Which adapters continued from which: a forest of edges, by their members' numbers.

    Parameters
    ----------
    cosine : array_like, shape (N, N)
        Of the whole delta_W, signed; NaN where two adapters have no module in common. Symmetric.
    norms : array_like, shape (N,)
        Frobenius norm of the whole delta_W; NaN where unknown, which costs the order of that adapter without a step.
    groups : sequence of groups of members
        Those that began at one start (`start_groups`). There is no edge between two groups, nor to a member of none.
    steps : sequence of int or None, optional
        Optimiser step of each adapter (`Member.step`).
    runs : sequence, optional
        What names the run of each adapter, such as the folder that its checkpoints are in; None where nothing does.
        Steps of two named runs are not compared. Adapters of one named run with different steps are neighbours from a
        cosine of 0.5 up.

    Returns
    -------
    list of Edge
        By `later`. Every adapter continues from one other at most.

    Notes
    -----
    Two members of a group are neighbours if their cosine is at least 0.9. The order of neighbours is that of their
    steps, unless the norms say clearly the opposite; without steps the later one is that which holds the earlier one
    and more, its component along it being at least 1.1 times as long (an update grows from zero). The edges are the
    shortest that join all neighbours, by ``||delta_W - delta_W'||_F``: along a path of training the checkpoint before
    is nearer than those before that, and than what lies on another branch. Two that continue from one have parted if
    neither lies on the way to the other: squared distances along a way add up. Of these the one that goes on most
    nearly in the direction of the update so far is called the continuation, the others branches. Copies (cosine
    ``1 - 1e-5`` and more) stand as one, by their first number.

    Two runs of one task from one start stay below 0.9 (0.75 was measured), and checkpoints far apart do so too: those
    are not connected unless checkpoints between them are there, or their names say that they are of one run.

    Examples
    --------
    >>> cosine = [[1, 0.96, 0.91], [0.96, 1, 0.97], [0.91, 0.97, 1]]
    >>> lineage(cosine, [1.0, 1.4, 1.7], [(0, 1, 2)])
    [Edge(earlier=0, later=1, kind='continued'), Edge(earlier=1, later=2, kind='continued')]
    """
    cosine, norms = np.asarray(cosine, dtype=float), np.asarray(norms, dtype=float)
    steps = [None] * len(norms) if steps is None else list(steps)
    runs = [None] * len(norms) if runs is None else list(runs)
    found: list[Edge] = []
    for group in groups:
        members = _without_copies(sorted(group), cosine)
        part = np.ix_(members, members)
        relations = _relations(
            cosine[part], norms[members], [steps[n] for n in members], [runs[n] for n in members]
        )
        distance = _distances(cosine[part], norms[members])
        found += [Edge(members[a], members[b], kind) for a, b, kind in _forest(*relations, distance)]
    return sorted(found, key=lambda edge: (edge.later, edge.earlier))


def _without_copies(members: Sequence[int], cosine: Floats) -> list[int]:
    """The members without those that are copies of an earlier number."""
    kept: list[int] = []
    for n in members:
        if not np.any(cosine[n, kept] >= SAME_UPDATE):
            kept.append(n)
    return kept


def _distances(cosine: Floats, norms: Floats) -> Floats:
    """Squared Frobenius distances of the updates, and in the last row and column those to zero.

    Where a norm is unknown they are those of the updates' directions.
    """
    n = norms if np.all(np.isfinite(norms)) else np.ones(len(norms))
    n, cosine = np.append(n, 0.0), np.pad(np.nan_to_num(cosine), (0, 1))
    squared: Floats = np.maximum(n[:, None] ** 2 + n**2 - 2 * cosine * n[:, None] * n, 0.0)
    return squared


def _relations(
    cosine: Floats, norms: Floats, steps: Sequence[int | None], runs: Sequence[object]
) -> tuple[NDArray[np.bool_], NDArray[np.int_], NDArray[np.bool_]]:
    """Which pairs are neighbours; 1 where the row is earlier than the column, -1 later, 0 unknown; equal steps."""
    cosine = np.nan_to_num(cosine)
    by_norm, by_step = _by_norm(cosine, norms), _by_step(steps)
    run = np.array([runs.index(each) if each is not None else -1 for each in runs])
    named = run >= 0
    other_run = np.not_equal.outer(run, run) & named[:, None] & named
    one_run = np.equal.outer(run, run) & named & (by_step != 0) & np.isfinite(by_step)
    by_step[other_run] = np.nan
    near = (cosine >= _SAME_RUN) | (one_run & (cosine >= _SAME_FOLDER))
    np.fill_diagonal(near, False)
    agreed = np.where(by_step * by_norm < 0, 0, by_step)
    return near, np.where(np.isnan(by_step), by_norm, agreed).astype(int), by_step == 0


def _by_step(steps: Sequence[int | None]) -> Floats:
    """1 where the row's step is the earlier, -1 where the later, 0 where they are equal, NaN where one is unknown."""
    known = np.array([np.nan if step is None else step for step in steps], dtype=float)
    signs: Floats = np.sign(known - known[:, None])
    return signs


def _by_norm(cosine: Floats, norms: Floats) -> Floats:
    """1 where the column's update holds the row's and more, -1 the other way round, 0 where neither does."""
    norms = np.where(np.isfinite(norms), norms, 0.0)
    later = (cosine * norms >= _CONTAINS * norms[:, None]) & np.logical_and.outer(norms > 0, norms > 0)
    return later.astype(float) - later.T


def _forest(
    near: NDArray[np.bool_], order: NDArray[np.int_], equal: NDArray[np.bool_], distance: Floats
) -> Iterator[tuple[int, int, Kind]]:
    """The shortest edges that join all that is near, each adapter with one parent; those of equal steps come last."""
    trees, parents = _Trees(len(near)), {}
    first, second = np.nonzero(np.triu(near))
    for n in np.lexsort((distance[first, second], equal[first, second])):
        i, j = int(first[n]), int(second[n])
        parent, child = (j, i) if order[i, j] < 0 else (i, j)
        if order[i, j] and child in parents:
            continue
        if trees.join(i, j):
            if order[i, j]:
                parents[child] = parent
            else:
                yield i, j, "unordered"
    for child, parent in parents.items():
        siblings = [c for c, p in parents.items() if p == parent and c != child]
        yield parent, child, "branch" if _turns_off(child, parent, siblings, distance) else "continued"


def _turns_off(child: int, parent: int, siblings: Sequence[int], squared: Floats) -> bool:
    """Whether a child went another way than a sibling, and that one went on straighter.

    On one way ``|far|^2`` from the parent is ``|near|^2 + |far - near|^2``, or more.
    """
    for sibling in siblings:
        near, far = sorted((squared[parent, child], squared[parent, sibling]))
        apart = squared[child, sibling]
        parted = far < max(apart, near + _ON_THE_WAY * apart)
        if parted and _straightness(child, parent, squared) < _straightness(sibling, parent, squared):
            return True
    return False


def _straightness(child: int, parent: int, squared: Floats) -> float:
    """Cosine of what a child added with its parent's update; the last row of the distances is that to zero."""
    whole, before, added = squared[-1, child], squared[-1, parent], squared[parent, child]
    return float((whole - before - added) / max(2 * np.sqrt(before * added), np.finfo(float).tiny))


class _Trees:
    """Which nodes are connected already."""

    def __init__(self, n: int) -> None:
        self._above = list(range(n))

    def join(self, first: int, second: int) -> bool:
        """Connect the trees of two nodes; False if they are one already."""
        first, second = self._root(first), self._root(second)
        self._above[first] = second
        return first != second

    def _root(self, n: int) -> int:
        while self._above[n] != n:
            self._above[n] = self._above[self._above[n]]
            n = self._above[n]
        return n
