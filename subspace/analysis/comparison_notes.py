"""What to know before reading a comparison: from its flags, the reading of both adapters, and the match of modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.adapters.place import place
from subspace.analysis import naming_notes
from subspace.flags import Flag, flag_notes
from subspace.text import counted, listed

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.adapters.naming.matching import Matched
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["comparison_notes", "flag_notes_of"]

_FACTORS = ("a", "b")


def comparison_notes(
    rows: Sequence[ModuleComparison], first: Adapter, second: Adapter, matched: Matched
) -> tuple[str, ...]:
    """One sentence for each thing to know; nothing for what did not happen.

    Parameters
    ----------
    rows : of the comparison, with the flags of its tests
    """
    return (
        *reading_notes(first, second),
        *naming_notes.notes(matched),
        *_left_over("first", first, matched.only_first),
        *_left_over("second", second, matched.only_second),
        *flag_notes_of(rows),
        *_composed(rows),
    )


def reading_notes(first: Adapter, second: Adapter) -> tuple[str, ...]:
    """What reading the two adapters had to say; of a scale nothing, since no number of a comparison depends on it."""
    notes = {
        name: [note for note in adapter.notes if note.flag is not Flag.SCALE_UNKNOWN]
        for name, adapter in (("first", first), ("second", second))
    }
    both = [note for note in notes["first"] if note in notes["second"]]
    alone = [
        f"In the {name} adapter, {place(adapter.path)}: {note}"
        for name, adapter in (("first", first), ("second", second))
        for note in notes[name]
        if note not in both
    ]
    return (*(f"In both adapters: {note}" for note in both), *alone)


def _left_over(which: str, adapter: Adapter, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    stored = [adapter.stored_names.get(name, name) for name in names]
    return (f"{counted(len(names), 'module')} only in the {which} adapter, not compared: {listed(stored)}",)


def flag_notes_of(rows: Sequence[ModuleComparison]) -> tuple[str, ...]:
    """The notes of the rows' flags, each of its module, and of its side where there are several."""
    several = len({row.side for row in rows}) > 1
    kept = [row for row in rows if row.init == "kept"]
    flags = {f"{row.module}, side {row.side}" if several else row.module: row.flags for row in kept}
    # the notes on numbers that are not finite name their file
    return flag_notes(flags, noun="comparison" if several else "module", without=(Flag.NOT_FINITE,))


def _composed(rows: Sequence[ModuleComparison]) -> tuple[str, ...]:
    """Sides that are of factors which were not trained as A and B."""
    having = dict.fromkeys(row.module for row in rows if row.side in _FACTORS and Flag.COMPOSED in row.flags)
    if not having:
        return ()
    return (
        f"In {counted(len(having), 'module')} ({listed(having)}) {Flag.COMPOSED.meaning}; compare `side` left or right",
    )
