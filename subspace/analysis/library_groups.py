"""Which adapters of a library belong together: copies, one start, one run, one task."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.analysis.duplicates import duplicates, near_duplicates
from subspace.analysis.lineage import Edge, lineage
from subspace.geometry.cluster_tree import ClusterTree, cluster_tree, clusters, excess
from subspace.geometry.start_groups import StartGroups, start_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.collection import Collection, Member
    from subspace.analysis.pair_results import AllPairs

__all__ = ["Groups", "groups_among", "nested_pairs", "run_of", "runs_of", "similarity_matrix"]

_LEAST = {"cosine": 0.15}  # of the mean likeness in a cluster; measured values are in `clusters`
_LEAST_EXCESS = 0.2
_NESTED = 0.2  # share beyond chance and control from which a smaller span is said to lie inside a larger


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of members by their numbers.

    Attributes
    ----------
    S : likeness of all pairs, (N, N), that clusters are made of
    tree, clusters : of the members by S
    starts, lineage, duplicates, near_duplicates : see the functions of these names
    """

    S: NDArray[np.float64]
    tree: ClusterTree
    clusters: list[tuple[int, ...]]
    starts: StartGroups
    lineage: list[Edge]
    duplicates: list[tuple[int, ...]]
    near_duplicates: list[tuple[int, ...]]


def groups_among(
    collection: Collection,
    pairs: AllPairs,
    norms: NDArray[np.float64],
    *,
    similarity: str,
    least: float | None,
) -> Groups:
    """All groups of the members of a collection.

    Parameters
    ----------
    pairs : all pairs in total
    norms : of the whole delta_W of each member, NaN where unknown
    similarity : "cosine" or the side whose phi makes clusters
    least : mean likeness in a cluster; the measured default without one
    """
    members = collection.members
    cosine = _square(pairs, pairs.cosine)
    z, largest, r = (_square(pairs, each) for each in (pairs.z, pairs.z_largest, pairs.z_r))
    starts = start_groups(z, np.nan_to_num(largest), np.maximum(np.nan_to_num(r), 1))
    same = _same_modules(collection)
    copies = near_duplicates(cosine, same)
    S = similarity_matrix(pairs, similarity)
    tree = cluster_tree(S)
    return Groups(
        S=S,
        tree=tree,
        clusters=clusters(tree, least=least or _LEAST.get(similarity, _LEAST_EXCESS)),
        starts=starts,
        lineage=lineage(cosine, norms, starts.groups, steps=[m.step for m in members], runs=runs_of(members)),
        duplicates=duplicates([member.sha256 for member in members]),
        near_duplicates=copies,
    )


def similarity_matrix(pairs: AllPairs, by: str) -> NDArray[np.float64]:
    """Likeness of all pairs, (N, N): the cosine, or phi of a side over its control, or chance where there is none."""
    if by == "cosine":
        return _square(pairs, pairs.cosine, diagonal=1.0)
    side: Any = by
    found = pairs.sides[side]
    level = np.where(np.isnan(found.phi_control), found.chance, found.phi_control)
    return pairs.square(excess(found.phi_full[0], level[0]), diagonal=1.0)


def nested_pairs(
    pairs: AllPairs, ranks: Sequence[float | None], related: Sequence[tuple[int, ...]], *, most: int = 100
) -> list[tuple[int, int, tuple[str, float, float]]]:
    """(inner, outer, (side, share, chance)) of pairs of unequal ranks that are nested in part, the most nested first.

    Parameters
    ----------
    ranks : of each member
    related : groups whose members are not compared with each other: those of one start are alike whatever they learned
    most : how many
    """
    rank = np.array([np.nan if each is None else each for each in ranks], dtype=np.float64)
    group = np.arange(len(rank)) + len(related)
    for n, members in enumerate(related):
        group[list(members)] = n
    first, second = pairs.first, pairs.second
    unequal = (rank[first] != rank[second]) & (group[first] != group[second])
    found: list[tuple[float, int, int, tuple[str, float, float]]] = []
    for side, each in pairs.sides.items():
        share, chance, control = (values[0] for values in (each.phi_full, each.chance, each.phi_control))
        over = share - np.fmax(chance, control)
        at = np.flatnonzero(unequal & (over >= _NESTED))
        at = at[np.argsort(-over[at], kind="stable")][:most]
        for n in at.tolist():
            one, other = int(first[n]), int(second[n])
            inner, outer = (one, other) if rank[one] < rank[other] else (other, one)
            found.append((float(over[n]), inner, outer, (str(side), float(share[n]), float(chance[n]))))
    found.sort(key=lambda each: -each[0])
    return [each[1:] for each in found[:most]]


def run_of(member: Member) -> str | None:
    """What names the run of a checkpoint: its path without the step; None where that does not say a step.

    Examples
    --------
    >>> from subspace.analysis.collection import Member
    >>> run_of(Member("out/checkpoint-500", step=500)), run_of(Member("out", step=None))
    ('out/checkpoint-*', None)
    """
    if member.step is None:
        return None
    return re.sub(rf"(?<!\d)0*{member.step}(?!\d)", "*", member.path)


def runs_of(members: Sequence[Member]) -> list[str | None]:
    """What names the run of each checkpoint; None also where the steps of a run begin later than they are apart.

    Such a run goes on with the count of another, so that its steps can be compared with all others.
    """
    runs = [run_of(member) for member in members]
    steps: dict[str, set[int]] = defaultdict(set)
    for run, member in zip(runs, members, strict=True):
        if run is not None and member.step is not None:
            steps[run].add(member.step)
    return [None if run is None or _goes_on(sorted(steps[run])) else run for run in runs]


def _goes_on(steps: Sequence[int]) -> bool:
    return len(steps) > 1 and steps[0] > min(b - a for a, b in pairwise(steps))


def _square(pairs: AllPairs, values: NDArray[Any] | None, *, diagonal: float = np.nan) -> NDArray[np.float64]:
    n = len(pairs.members)
    if values is None:
        return np.full((n, n), np.nan)
    return pairs.square(np.asarray(values[0], float), diagonal=diagonal)


def _same_modules(collection: Collection) -> NDArray[np.bool_]:
    """Whether two members have the same modules, (N, N)."""
    own: list[list[int]] = [[] for _ in collection.members]
    for n, module in enumerate(collection.modules):
        for member in collection.holders(module):
            own[member].append(n)
    known: dict[tuple[int, ...], int] = {}
    kinds = np.array([known.setdefault(tuple(each), len(known)) for each in own])
    return np.asarray(np.equal.outer(kinds, kinds))
