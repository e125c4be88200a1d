"""A table on a terminal: it fits the width, and says what it left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from subspace.adapters.naming.sorting import shared_beginning

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["draw"]

# the first to go where the terminal is narrow
_SPARE = (
    "proj_random_sd",
    "proj_W_error",
    "z_full",
    "d",
    "norm_A",
    "norm_B",
    "d_in",
    "d_out",
    "scale_source",
    "norm_W",
    "rank_first",
    "rank_second",
    "times_chance",
    "effective_rank",
    "proj_random",
)
_GAP = 2
_NAMES = "module"


def draw(columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console | None = None) -> None:
    """Print a table without wrapping a number; columns that do not fit are left out by name.

    The beginning that all module names share is said once, above the table.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(highlight=False)
    cells = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}
    shared, told = shared_beginning(cells.get(_NAMES, []))
    if shared:
        cells[_NAMES] = told
    kept, left_out = _fitting(cells, console.width)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column in kept:
        names = column == _NAMES
        table.add_column(
            _header(column),
            justify="left" if names else "right",
            no_wrap=not names,
            overflow="fold",
            vertical="bottom",
        )
    for row in zip(*kept.values(), strict=True):
        table.add_row(*map(Text, row))
    if shared:
        console.print(f"modules of {shared}", markup=False)
    console.print(table)
    if left_out:
        console.print(f"not shown for want of width: {', '.join(left_out)} (--csv has all)", markup=False)


def _fitting(cells: Mapping[str, list[str]], width: int) -> tuple[dict[str, list[str]], list[str]]:
    """Columns that fit, and the names of those that were left out; a column without a value says nothing."""
    kept = {column: texts for column, texts in cells.items() if any(text not in ("", "-") for text in texts)}
    left_out = []
    for spare in _SPARE:
        if sum(_width(column, texts) + _GAP for column, texts in kept.items()) <= width + _GAP:
            break
        if spare in kept:
            left_out.append(spare)
            del kept[spare]
    return kept, left_out


def _width(column: str, texts: Sequence[str]) -> int:
    return max(map(len, [*_header(column).split("\n"), *texts]))


def _header(column: str) -> str:
    """A column's name on several short lines.

    Examples
    --------
    >>> _header("norm_delta_W").split()
    ['norm', 'ΔW']
    """
    told = column.replace("delta_W", "ΔW").replace("amplification", "ampli-_fication")
    return told.replace("_", "\n")
