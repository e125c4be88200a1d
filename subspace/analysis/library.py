"""Many adapters of one base: which are alike, copies, of one start, of one run, and what do all share?

Every pair is compared on the modules that both have, in numbers that no refactorisation of an update changes: phi of
the LoRA paper (arXiv 2106.09685v2, section 7.2) on each side, distances of the spans, the cosine of delta_W. Each
stands next to isotropic random spans, matched controls and, in a library of 39 or more, the library itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.analysis.frames import SIDES
from subspace.analysis.library_groups import Groups, groups_among, nested_pairs, similarity_matrix
from subspace.analysis.library_limits import part_of, require, require_room, require_two
from subspace.analysis.library_members import Gathered, gathered
from subspace.analysis.library_table import METRICS, pair_table
from subspace.analysis.resolve import Loading
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.results.adapter_pairs import PairRows
from subspace.results.library import Cluster, Library, Lineage, Nested, Unread
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.pair_results import AllPairs

__all__ = ["library"]


def library(
    adapters: Any,
    *,
    by: str = "total",
    side: str | Sequence[str] = ("a", "b"),
    index: Any = None,
    near: Any = None,
    nearest: int = 20,
    similarity: str = "cosine",
    least: float | None = None,
    metric: str = "chordal",
    leading: tuple[int, int] | None = None,
    controls: str = "all",
    shared: int = 4,
    layers: bool = False,
    jobs: int = 1,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[..., None] | None = None,
) -> Library:
    """Compare many adapters, all pairs at once, and say which belong together and how.

    Parameters
    ----------
    adapters : paths of adapters, and of directories with adapters anywhere below; tensors, models or `Adapter` objects;
        a mapping of names to these; or a `Collection`, such as an `Index`
    by : "total" for one row per pair and side, "layer" or "module" for one for each of those
    side : "a", "b", "left", "right", several of them, or "all"
    index : folder in which what was read and computed is kept: the adapters are added to those that are there, and all
        of them are the library
    near : an adapter of the index, by its path or the end of it; only this one and those nearest to it are compared, as
        is needed from some ten thousand adapters on. A sketch of each adapter finds them without comparing all pairs.
    nearest : how many of these, on each side
    similarity : what clusters are made of: "cosine" of delta_W, or the side whose phi, over its control, is taken
    least : mean similarity within a cluster; by default 0.15 for the cosine and 0.2 for phi
    metric : the distance of spans that rows have: "chordal" and "geodesic" of their principal angles, or "projector",
        the Frobenius distance of the projectors, a metric for unequal ranks too
    leading : (i, j), to have phi(i, j) in the rows too
    controls : which matched controls to measure: "same-input", "layers", "all" or "none"
    shared : in how many modules to measure the subspace that all adapters share; 0 for none
    layers : whether to measure phi between the layers of each kind of module
    jobs : number of processes; a back end that `joblib.parallel_config` has put in place (dask, ray) is used
    base, scale, adapter_name, enable_lora, layout, rename : how each adapter is read, as `load_adapter` takes them
    progress : called with steps done, steps in all, and what is being done

    Returns
    -------
    Library
        The pairs, the most alike first, and the groups. What cannot be read is left out, and named.

    Raises
    ------
    FileError : fewer than two adapters can be read
    InconclusiveError : no two adapters have a trained module in common

    Notes
    -----
    Time and memory grow with the square of the number of adapters: 2,000 are two million pairs. With an index one more
    costs as many pairs as there are adapters.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> one = {"q.lora_A": rng.standard_normal((2, 8)), "q.lora_B": rng.standard_normal((6, 2))}
    >>> other = {"q.lora_A": rng.standard_normal((2, 8)), "q.lora_B": rng.standard_normal((6, 2))}
    >>> found = library({"one": one, "copy": one, "other": other})
    >>> [round(row.cosine, 3) for row in found.pairs if row.side == "a"][0]
    1.0
    """
    asked = _Asked.of(by, side, similarity, metric, leading, controls, jobs)
    loading = Loading(base, scale, adapter_name, enable_lora, rename, layout)
    part = part_of(near, nearest, index, asked.sides)
    found = gathered(adapters, loading, index=index, near=part, progress=_named(progress, "reading"))
    require_two(found)
    total = asked.pairs(found, "total", _named(progress, "comparing"))
    rows = total if by == "total" else asked.pairs(found, by, _named(progress, f"by {by}"))
    groups = groups_among(found.collection, total, found.norms, similarity=similarity, least=least)
    result = _concluded(found, asked, total, rows, groups, shared)
    if not layers:
        return result
    from subspace.analysis.library_layers import layer_pairs

    return replace(result, layers=tuple(layer_pairs(found.collection, asked.sides[0])))


@dataclass(frozen=True)
class _Asked:
    """What is asked of every pair."""

    by: str
    sides: tuple[Any, ...]
    similarity: str
    metric: str
    leading: tuple[int, int] | None
    controls: str
    jobs: int

    @classmethod
    def of(
        cls,
        by: str,
        side: str | Sequence[str],
        similarity: str,
        metric: str,
        leading: tuple[int, int] | None,
        controls: str,
        jobs: int,
    ) -> _Asked:
        from subspace.analysis.all_pairs import BY

        wanted = SIDES if side == "all" else (side,) if isinstance(side, str) else tuple(dict.fromkeys(side))
        require("by", by, BY)
        require("similarity", similarity, ("cosine", *SIDES))
        require("metric", metric, METRICS)
        for each in wanted:
            require("side", each, SIDES)
        if similarity != "cosine" and similarity not in wanted:
            wanted = (*wanted, similarity)
        if not wanted:
            raise ValueRangeError(f"No side to compare; give `side` as some of {', '.join(SIDES)}")
        return cls(by, wanted, similarity, metric, leading, controls, jobs)

    def pairs(self, found: Gathered, by: str, progress: Callable[[int, int], None] | None) -> AllPairs:
        """All pairs, or where they are kept in an index, those that are new."""
        from subspace.analysis.library_index import pairs_of

        require_room(found, by, len(self.sides))
        settings = {
            "by": by,
            "sides": self.sides,
            "leading": () if self.leading is None else (self.leading,),
            "controls": self.controls if by == self.by else "none",
            "geodesic": self.metric == "geodesic",
        }
        return pairs_of(found.collection, settings, jobs=self.jobs, progress=progress)


def _named(progress: Callable[..., None] | None, words: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(done, total, words)


def _concluded(
    found: Gathered, asked: _Asked, total: AllPairs, rows: AllPairs, groups: Groups, shared: int
) -> Library:
    from subspace.analysis.library_shared import shared_directions

    paths = [each.path for each in found.adapters]
    start_of, cluster_of = _places(groups.starts.groups, len(paths)), _places(groups.clusters, len(paths))
    one_start = (start_of[rows.first] >= 0) & (start_of[rows.first] == start_of[rows.second])
    table, floor = pair_table(
        rows,
        metric=asked.metric,
        leading=asked.leading,
        paths=paths,
        names=[each.name for each in found.adapters],
        shared_start=one_start,
    )
    _require_pairs(len(table), len(paths))
    spans, of_modules = shared_directions(found.collection, most=shared)
    nested = nested_pairs(total, [each.rank for each in found.adapters], groups.starts.groups)
    adapters = tuple(
        replace(each, cluster=_or_none(cluster_of[n]), start_group=_or_none(start_of[n]))
        for n, each in enumerate(found.adapters)
    )
    return Library(
        modules=PairRows(table),
        adapters=adapters,
        by=asked.by,
        metric=asked.metric,
        similarity=asked.similarity,
        nested=tuple(Nested(paths[m], paths[n], *rest) for m, n, rest in nested),
        shared=tuple(spans),
        index=found.index,
        new=found.new,
        common=_common(found),
        p_floor=floor,
        skipped=tuple(Unread(each.path, each.why) for each in found.skipped),
        notes=(*found.notes, *_notes(found, len(spans), shared, of_modules)),
        tree=groups.tree,
        likeness={name: similarity_matrix(total, name) for name in ("cosine", *total.sides)},
        **_named_groups(paths, groups),
    )


def _common(found: Gathered) -> int:
    """Number of modules that all adapters have, those aside that have none."""
    trained = sum(each.modules > 0 for each in found.adapters)
    return sum(len(found.collection.holders(module)) == trained for module in found.collection.modules)


def _named_groups(paths: Sequence[str], groups: Groups) -> dict[str, Any]:
    """The groups of a library, by paths."""
    return {
        "clusters": tuple(Cluster(_of(paths, group), _mean(groups.S, group)) for group in groups.clusters),
        "duplicates": tuple(_of(paths, group) for group in groups.duplicates),
        "near_duplicates": tuple(_of(paths, group) for group in groups.near_duplicates),
        "start_groups": tuple(_of(paths, group) for group in groups.starts.groups),
        "untestable": _of(paths, groups.starts.untestable),
        "lineage": tuple(Lineage(paths[e.earlier], paths[e.later], e.kind) for e in groups.lineage),
    }


def _notes(found: Gathered, spans: int, shared: int, modules: int) -> list[str]:
    notes = []
    if found.skipped:
        first = found.skipped[0]
        notes.append(
            f"{counted(len(found.skipped), 'path')} not read: {listed(each.path for each in found.skipped)} (of the "
            f"first: {shown(first.why, longest=300)})"
        )
    if shared and modules and not spans:
        notes.append(
            "The shared subspace was not measured, since it would take long at this size; give fewer adapters"
        )
    return notes


def _require_pairs(pairs: int, adapters: int) -> None:
    """Refuse a library in which nothing can be compared."""
    if not pairs:
        raise InconclusiveError(
            f"No module in common: none of {counted(adapters, 'adapter')} has a trained module that another has too; "
            "rename modules with `rename`, or give adapters of one base"
        )


def _places(groups: Sequence[Sequence[int]], n: int) -> NDArray[np.int_]:
    """Place of the group of each member, -1 without one."""
    found = np.full(n, -1)
    for place, group in enumerate(groups):
        found[list(group)] = place
    return found


def _or_none(place: np.int_) -> int | None:
    return None if place < 0 else int(place)


def _of(paths: Sequence[str], group: Sequence[int]) -> tuple[str, ...]:
    return tuple(paths[n] for n in group)


def _mean(S: NDArray[np.float64], group: Sequence[int]) -> float:
    """Mean likeness of the pairs of a group."""
    part = S[np.ix_(group, group)][np.triu_indices(len(group), 1)]
    return float(np.nanmean(part))
