"""Modules that two writers name differently: notes on them, and the sides that their order of rows leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters import Adapter, Update
from subspace.analysis.frames import dimension
from subspace.flags import Flag
from subspace.text import counted, listed

if TYPE_CHECKING:
    from subspace.adapters import BaseWeights
    from subspace.adapters.naming.matching import Matched
    from subspace.adapters.naming.translation import Hit

__all__ = ["base_notes", "flagged", "notes", "settled", "why_not"]


def settled(matched: Matched, first: Adapter, second: Adapter) -> Matched:
    """The match without the doubt about the order of rows, where a GGUF file names a model whose rows are kept."""
    if not matched.translated or not any(map(_keeps_rows, (first, second))):
        return matched
    kept = {
        name: hit._replace(reordered=hit.reordered and hit.how != "llama.cpp")
        for name, hit in matched.translated.items()
    }
    return matched._replace(translated=kept)


def _keeps_rows(adapter: Adapter) -> bool:
    from subspace.adapters.naming.writers.gguf import UNPERMUTED

    metadata = adapter.tensors.metadata if adapter.tensors is not None else {}
    return adapter.format == "gguf" and metadata.get("general.architecture") in UNPERMUTED


def flagged(adapter: Adapter, matched: Matched) -> Adapter:
    """The second adapter of a match, its modules flagged whose rows may be in another order than the first's."""
    names = [
        other
        for name, other in matched.pairs
        if name in matched.translated and matched.translated[name].reordered
    ]
    if not names:
        return adapter
    changed = {
        name: replace(adapter[name], flags=(*adapter[name].flags, Flag.ROWS_REORDERED)) for name in names
    }
    return replace(adapter, updates={**adapter.updates, **changed})


def notes(matched: Matched) -> tuple[str, ...]:
    """How modules were matched that are spelled differently, and which of them have rows in another order."""
    return tuple(_notes_of(matched.translated.items(), "not compared on the sides b and left"))


def why_not(pair: tuple[Update, Update], side: str) -> tuple[Flag, ...]:
    """Flag of a side that cannot be compared, as the spaces are not the same; () where it can."""
    if dimension(pair[0], side) != dimension(pair[1], side):
        return (Flag.SHAPE_DIFFERS,)
    reordered = side in {"b", "left"} and Flag.ROWS_REORDERED in pair[1].flags
    return (Flag.ROWS_REORDERED,) if reordered else ()


def base_notes(base: BaseWeights, keys: Mapping[str, str], missing: Sequence[str]) -> tuple[str, ...]:
    """How modules were found in the base under another name; of the missing ones, which were but cannot be used.

    Parameters
    ----------
    keys : module -> key of its weight
    """
    found = {module: base.translated(module) for module in [*keys, *missing] if base.find(module) is None}
    hits = [
        (module, hit[1])
        for module, hit in found.items()
        if hit is not None
        and (hit[1].reordered if module not in keys else keys[module] == base.modules[hit[0]])
    ]
    return tuple(_notes_of(hits, "not measured against the base"))


def _notes_of(hits: Iterable[tuple[str, Hit]], consequence: str) -> list[str]:
    hits = list(hits)
    notes = [
        f"{counted(n, 'module')} matched by {how} names" for how, n in Counter(h.how for _, h in hits).items()
    ]
    reordered = [module for module, hit in hits if hit.reordered]
    if reordered:
        notes.append(
            f"{counted(len(reordered), 'module')} may have the rows of B in the other writer's order, and so are "
            f"{consequence}: {listed(reordered)}"
        )
    return notes
