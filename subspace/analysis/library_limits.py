"""What a library can be asked, and how large it may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from subspace.analysis.library_members import Gathered, Near
from subspace.errors import FileError, ValueRangeError
from subspace.text import counted, shown

if TYPE_CHECKING:
    from subspace.geometry.stacked_spans import Side

__all__ = ["part_of", "require", "require_room", "require_two"]

_MOST_CELLS = 4e7  # pairs times groups times sides, at about a hundred bytes each


def part_of(near: Any, nearest: int, index: Any, sides: Sequence[Side]) -> Near | None:
    """Which part of an index is asked for."""
    if near is None:
        return None
    if index is None:
        raise ValueRangeError("No index to look for neighbours in: give `index` with `near`")
    if nearest < 1:
        raise ValueRangeError(f"Too few neighbours: {nearest}; give `nearest` of at least 1")
    return Near(near, nearest, tuple(sides))


def require_two(found: Gathered) -> None:
    """Refuse a library without a pair."""
    n = len(found.adapters)
    if n >= 2:
        return
    why = f": {found.skipped[0].why}" if found.skipped else ""
    unread = f", {counted(len(found.skipped), 'path')} cannot be read{why}" if found.skipped else ""
    raise FileError(f"Too few adapters: {n} can be read{unread}; give at least two")


def require_room(found: Gathered, by: str, sides: int) -> None:
    """Refuse what would not fit into memory."""
    n = len(found.adapters)
    groups = 1 if by == "total" else len(found.collection.modules)
    if n * (n - 1) / 2 * groups * sides > _MOST_CELLS:
        raise ValueRangeError(
            f"Too many rows: {counted(n, 'adapter')}, {groups} groups and {counted(sides, 'side')} are "
            f"{n * (n - 1) // 2 * groups * sides:,} rows; give `by` total, fewer sides, fewer adapters, or with "
            "`index` one adapter as `near`"
        )


def require(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise ValueRangeError(f"Unknown `{name}` {shown(repr(value))}; choose one of {', '.join(choices)}")
