"""The headline of a library, sentence by sentence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from subspace.flags import Flag
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.results.adapter_pairs import AdapterPair
    from subspace.results.library import Library
    from subspace.results.library_parts import SharedDirections

__all__ = ["library_facts"]

_SIDES = {"a": "A", "b": "B", "left": "delta_W's output side", "right": "delta_W's input side"}
_NAMED, _MEMBERS = 3, 4  # groups that a sentence names, and members of each


def library_facts(library: Library) -> tuple[str, ...]:
    """Sentences on a library: what there is, which adapters belong together and how, and how much all share."""
    return tuple(
        sentence
        for sentence in (
            _what(library),
            _untrained(library),
            _duplicates(library),
            _near_duplicates(library),
            _lineage(library),
            _starts(library),
            _clusters(library),
            _nearest(library),
            _nested(library),
            _shared(library),
        )
        if sentence
    )


def _what(library: Library) -> str:
    n, table = len(library.adapters), library.modules.table
    with_rows = len(np.unique(table.first.astype(np.int64) * n + table.second))
    possible = n * (n - 1) // 2
    common = f"{counted(library.common, 'module')} in common" if library.common else "no module common to all"
    if with_rows == possible:
        return f"{n} adapters with {common}, all {counted(possible, 'pair')} compared."
    return (
        f"{n} adapters with {common}: {with_rows} of {counted(possible, 'pair')} have modules in common, and each is "
        "compared on those."
    )


def _untrained(library: Library) -> str:
    names = [each.name for each in library.adapters if Flag.UNTRAINED in each.flags]
    if not names:
        return ""
    return f"{_are(len(names), 'adapter')} untrained and in no pair: {listed(names)}."


def _duplicates(library: Library) -> str:
    copies = sum(len(group) - 1 for group in library.duplicates)
    if not copies:
        return ""
    return (
        f"{_are(copies, 'adapter')} the same file as another: {_groups(library, library.duplicates, ' = ')}."
    )


def _near_duplicates(library: Library) -> str:
    same = {path for group in library.duplicates for path in group}
    groups = [group for group in library.near_duplicates if not same.issuperset(group)]
    if not groups:
        return ""
    return (
        f"{counted(len(groups), 'group')} {'has' if len(groups) == 1 else 'have'} one update, stored in other ways: "
        f"{_groups(library, groups, ' = ')}."
    )


def _lineage(library: Library) -> str:
    if not library.lineage:
        return ""
    ordered = [edge for edge in library.lineage if edge.kind != "unordered"]
    name = _names(library)
    examples = [f"{name[e.earlier]} -> {name[e.later]}" for e in ordered]
    examples += [f"{name[e.earlier]} - {name[e.later]}" for e in library.lineage if e.kind == "unordered"]
    branches = sum(edge.kind == "branch" for edge in library.lineage)
    words = [f"{counted(len(library.lineage), 'adapter')} continued from another"]
    if branches:
        words.append(f"{branches} of them as a branch")
    unordered = len(library.lineage) - len(ordered)
    if unordered:
        words.append(f"{unordered} in an order that the numbers do not tell")
    return f"{', '.join(words)}: {listed(examples, most=5)}."


def _starts(library: Library) -> str:
    able = len(library.adapters) - len(library.untestable)
    if library.start_groups:
        n = sum(map(len, library.start_groups))
        return (
            f"{n} adapters began at {'one start' if len(library.start_groups) == 1 else 'starts that they share'}, by "
            f"the rows of A: {_groups(library, library.start_groups, ', ')}."
        )
    if able < 2:
        return "No pair has rows of A enough to show a common start."
    return f"No two of the {able} adapters that could show it began at one start, by the rows of A."


def _clusters(library: Library) -> str:
    if len(library.adapters) < 3:
        return ""
    by = "the cosine of delta_W"
    if library.similarity != "cosine":
        by = f"phi of {_SIDES[library.similarity]} over its level"
    if not library.clusters:
        return f"By {by} no two adapters are in part the same."
    alone = len(library.adapters) - sum(len(each.adapters) for each in library.clusters)
    groups = [each.adapters for each in library.clusters]
    count = "is 1 cluster" if len(groups) == 1 else f"are {len(groups)} clusters"
    rest = f"; {alone} {'is' if alone == 1 else 'are'} in none" if alone else ""
    return f"By {by} there {count} of adapters that are in part the same ({_groups(library, groups, ', ')}){rest}."


def _nearest(library: Library) -> str:
    rows = library.modules
    if not len(rows):
        return ""
    related = {frozenset((e.earlier, e.later)) for e in library.lineage}
    related |= {frozenset(pair) for group in library.near_duplicates for pair in combinations(group, 2)}
    for n in rows.table.order:
        row = rows.table.row(int(n))
        if frozenset((row.first, row.second)) not in related:
            return _alike(row, " that are neither copies nor neighbours in one run" if related else "")
    return ""


def _alike(row: AdapterPair, which: str) -> str:
    numbers = [] if row.cosine is None else [f"cosine {row.cosine:.2f}"]
    if row.phi_full is not None:
        numbers.append(f"phi of {_SIDES[row.side]} {row.phi_full:.2f} (chance {row.chance:.2g})")
    where = f" in {shown(row.part)}" if row.part else ""
    return (
        f"The most alike{where}{which}: {shown(row.first_name)} and {shown(row.second_name)}, "
        f"{', '.join(numbers)}."
    )


def _nested(library: Library) -> str:
    if not library.nested:
        return ""
    adapters = {each.path: each for each in library.adapters}
    found = []
    for each in library.nested[:_NAMED]:
        inner, outer = adapters[each.inner], adapters[each.outer]
        found.append(
            f"{100 * each.share:.0f} % of {_SIDES[each.side]} of {shown(inner.name)} (rank {inner.rank:g}) lies inside "
            f"that of {shown(outer.name)} (rank {outer.rank:g}; chance {100 * each.chance:.2g} %)"
        )
    return f"Nested in part: {'; '.join(found)}."


def _shared(library: Library) -> str:
    whole = [each for each in library.shared if not each.mean_removed]
    if not whole:
        return ""
    sides = dict.fromkeys(each.side for each in whole)
    found = [_shared_side([each for each in whole if each.side == side], library, side) for side in sides]
    return f"To hold 90 % of the energy of all updates takes {'; '.join(found)}."


def _shared_side(rows: Sequence[SharedDirections], library: Library, side: str) -> str:
    own, random = median(row.directions for row in rows), median(row.directions_random for row in rows)
    rest = [each.directions for each in library.shared if each.mean_removed and each.side == side]
    removed = f", with the mean update removed {median(rest):.3g}" if rest else ""
    narrow = sum(row.narrow for row in rows)
    caution = f"; {narrow} of {counted(len(rows), 'module')} too narrow to tell" if narrow else ""
    what = "direction" if own == 1 else "directions"
    return (
        f"{own:.3g} {what} of {_SIDES[side]} (random ones of the same strengths {random:.3g}{removed}; median of "
        f"{counted(len(rows), 'module')}{caution})"
    )


def _groups(library: Library, groups: Sequence[Sequence[str]], between: str) -> str:
    name = _names(library)
    texts = [_group([name[path] for path in group], between) for group in groups]
    more = len(texts) - _NAMED
    return "; ".join(texts[:_NAMED]) + (f"; and {counted(more, 'group')} more" if more > 0 else "")


def _group(names: Sequence[str], between: str) -> str:
    more = f" and {len(names) - _MEMBERS} more" if len(names) > _MEMBERS else ""
    return between.join(map(shown, names[:_MEMBERS])) + more


def _names(library: Library) -> dict[str, str]:
    return {each.path: each.name for each in library.adapters}


def _are(n: int, noun: str) -> str:
    return f"{counted(n, noun)} {'is' if n == 1 else 'are'}"
