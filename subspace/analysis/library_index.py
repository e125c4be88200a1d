"""A library that is kept in an index on disk: what was read and compared once is read and compared no more."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from subspace.analysis.adapters_in_memory import Skipped
from subspace.analysis.all_pairs import all_pairs
from subspace.analysis.library_members import Gathered, Near, norms_of
from subspace.analysis.library_near import Chosen, neighbourhood
from subspace.analysis.short_names import short_names
from subspace.flags import Flag
from subspace.index import Index
from subspace.results.library import LibraryAdapter

if TYPE_CHECKING:
    from subspace.analysis.collection import Collection
    from subspace.analysis.pair_results import AllPairs
    from subspace.analysis.resolve import Loading

__all__ = ["indexed", "of_collection", "pairs_of"]

_AT_ONCE = 64  # adapters that are added between two reports of progress
_OF_ADAPTERS = (Flag.DENSE, Flag.COMPOSED, Flag.DORA)


def indexed(
    folder: Any,
    sources: Sequence[Any],
    loading: Loading,
    notes: tuple[str, ...],
    progress: Callable[[int, int], None] | None,
    near: Near | None = None,
) -> Gathered:
    """The members of an index, or one of them and those near it, once adapters were added to it."""
    index = Index(folder)
    before, skipped = len(index), list[Skipped]()
    reading = {name: value for name, value in vars(loading).items() if value is not None}
    for start in range(0, len(sources), _AT_ONCE):
        added = index.add(sources[start : start + _AT_ONCE], reading=reading, keep_going=True)
        skipped += [Skipped(path, why) for path, why in added.refused]
        notes = (*notes, *added.notes)
        if progress is not None:
            progress(min(start + _AT_ONCE, len(sources)), len(sources))
    collection: Collection = index
    if near is not None:
        collection, note = neighbourhood(index, near.adapter, near.count, near.sides)
        notes = (*notes, note)
    found = of_collection(collection, notes=(*notes, *index.notes))
    return replace(found, skipped=tuple(skipped), index=os.fspath(folder), new=len(index) - before)


def of_collection(collection: Collection, notes: tuple[str, ...] = ()) -> Gathered:
    """The adapters of a collection."""
    counts = Counter(n for module in collection.modules for n in collection.holders(module))
    paths = [member.path for member in collection.members]
    formats, flags, ranks = _known(collection, len(paths))
    adapters = tuple(
        LibraryAdapter(
            path=member.path,
            name=name,
            sha256=member.sha256,
            format=formats[n],
            modules=counts[n],
            rank=median(ranks[n]) if ranks[n] else None,
            step=member.step,
            flags=flags[n] if counts[n] else (Flag.UNTRAINED,),
        )
        for n, (member, name) in enumerate(zip(collection.members, short_names(paths), strict=True))
    )
    return Gathered(collection, adapters, norms_of(collection), (), notes)


def _known(collection: Collection, n: int) -> tuple[list[str], list[tuple[Flag, ...]], list[list[int]]]:
    """Format and flags of each member, and the ranks of its modules, where the collection knows them."""
    ranks: list[list[int]] = [[] for _ in range(n)]
    if not isinstance(collection, Index | Chosen):
        return [""] * n, [()] * n, ranks
    found: list[set[Flag]] = [set() for _ in range(n)]
    for module in collection.modules:
        for number, facts in collection.facts(module).items():
            ranks[number].append(facts.r)
            found[number] |= {flag for flag in _OF_ADAPTERS if flag in facts.flags}
            if facts.scale is None:
                found[number].add(Flag.SCALE_UNKNOWN)
    return collection.formats, [tuple(flag for flag in Flag if flag in own) for own in found], ranks


def pairs_of(
    collection: Collection,
    settings: Mapping[str, Any],
    *,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> AllPairs:
    """All pairs of a collection; of an index only those are computed that it does not keep yet.

    Parameters
    ----------
    settings : keywords of `all_pairs`
    """
    if isinstance(collection, Index):
        from subspace.analysis.indexed_pairs import indexed_pairs

        return indexed_pairs(collection, **settings, jobs=jobs, progress=progress)
    return all_pairs(collection, **settings, jobs=jobs, progress=progress)
