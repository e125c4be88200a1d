"""Some rows of a result: those of modules whose name matches, sorted by a column, the first few."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

from subspace.errors import ValueRangeError
from subspace.text import listed, shown

__all__ = ["chosen_rows"]

_COLUMNS = 40  # more than any result has


class _Row(Protocol):
    """What a row must have to be chosen."""

    module: str

    def sortable(self) -> dict[str, Any]:
        """Return the values that rows can be sorted by."""


_R = TypeVar("_R", bound=_Row)


def chosen_rows(rows: Sequence[_R], modules: Sequence[str], sort: str | None, top: int | None) -> list[_R]:
    """The rows that match, in order; parameters and errors as `Result.selected`."""
    chosen = [row for row in rows if not modules or any(fnmatchcase(row.module, each) for each in modules)]
    if rows and not chosen:
        names = dict.fromkeys(row.module for row in rows)
        raise ValueRangeError(f"No module matches {listed(modules)}; there are {listed(names, most=5)}")
    if sort is not None:
        chosen = _sorted(chosen, sort.removeprefix("-"), reverse=sort.startswith("-"))
    return chosen[:top]


def _sorted(rows: list[_R], column: str, *, reverse: bool) -> list[_R]:
    """Rows by the values of a column; those without a value come last either way."""
    values = [row.sortable() for row in rows]
    columns = dict.fromkeys(name for each in values for name in each)
    if rows and column not in columns:
        raise ValueRangeError(
            f"No column {shown(repr(column))} to sort by; there are {listed(columns, most=_COLUMNS)}"
        )
    pairs = [(row, each.get(column)) for row, each in zip(rows, values, strict=True)]
    known = [(row, value) for row, value in pairs if value is not None]
    unknown = [row for row, value in pairs if value is None]
    numbers = bool(known) and not isinstance(known[0][1], str)
    known.sort(key=lambda item: item[1], reverse=numbers is not reverse)
    return [*(row for row, _ in known), *unknown]
