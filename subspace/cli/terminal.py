"""A table on a terminal: it fits the width, and says what it left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from subspace.adapters.naming.sorting import shared_beginning

if TYPE_CHECKING:
    from rich.console import Console

    from subspace.results.columns import Column

__all__ = ["draw"]

_GAP = 2
_NAMES = "module"


def draw(columns: Sequence[Column], rows: Sequence[Sequence[str]], console: Console | None = None) -> None:
    """Print a table without wrapping a number; columns that do not fit are left out, and named.

    The beginning that all module names share is printed once, above the table.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(highlight=False)
    cells = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}
    names = next((each for each in cells if each.name == _NAMES), None)
    beginning = ""
    if names is not None:
        beginning, cells[names] = shared_beginning(cells[names])
    kept, left_out = _fitting(cells, console.width)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for each in kept:
        wide = each.name == _NAMES
        table.add_column(
            _header(each.label),
            justify="left" if wide else "right",
            no_wrap=not wide,
            overflow="fold",
            vertical="bottom",
        )
    for row in zip(*kept.values(), strict=True):
        table.add_row(*map(Text, row))
    if beginning:
        console.print(f"modules of {beginning}", markup=False)
    console.print(table)
    if left_out:
        console.print(f"not shown for lack of width: {', '.join(left_out)} (--csv has all)", markup=False)


def _fitting(cells: Mapping[Column, list[str]], width: int) -> tuple[dict[Column, list[str]], list[str]]:
    """Columns that fit, and the names of those that were left out; a column without a value is no loss."""
    kept = {each: texts for each, texts in cells.items() if any(text not in ("", "-") for text in texts)}
    left_out = []
    for spare in sorted((each for each in kept if each.drop), key=lambda each: each.drop):
        if sum(_width(each, texts) + _GAP for each, texts in kept.items()) <= width + _GAP:
            break
        left_out.append(spare.name)
        del kept[spare]
    return kept, left_out


def _width(each: Column, texts: Sequence[str]) -> int:
    return max(map(len, [*_header(each.label).split("\n"), *texts]))


def _header(label: str) -> str:
    """A column's label on several short lines.

    Examples
    --------
    >>> _header("norm ΔW").split("\\n"), _header("norm_A").split("\\n")
    (['norm', 'ΔW'], ['norm', 'A'])
    """
    return label.replace("amplification", "ampli-_fication").replace("_", "\n").replace(" ", "\n")
