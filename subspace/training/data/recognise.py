"""Which format a text has by what it says: a table may be called .txt, and CSV is not always separated by commas."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from subspace.checkpoints import strict_json
from subspace.errors import FormatError
from subspace.text import listed, shown
from subspace.training.data.delimited import (
    SEPARATORS,
    csv_table,
    first_line,
    fitting,
    header_of,
    lines_of,
    tsv_table,
)
from subspace.training.data.jsonrows import jsonl_table
from subspace.training.data.table import Table
from subspace.training.data.text_columns import text_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Recognised", "delimited_table", "recognised"]

_MOST_ROWS = 0.9  # must be as long as the header, where its columns are known; the others are then an error
_HALF = 0.5  # make it worth a note
_SAMPLE = 2**18  # characters that decide between a text and a table whose columns are not known


class Recognised(NamedTuple):
    """The table that a text is, None where it is read as plain text, and notes for the user."""

    table: Table | None
    notes: tuple[str, ...]


def delimited_table(text: str, path: str, usual: str, wanted: Sequence[str] = ()) -> Recognised:
    r"""Return the rows of a file that is called .csv or .tsv, whatever separates its columns.

    Parameters
    ----------
    text, path : of the file
    usual : what should separate columns by the name of the file
    wanted : columns that the user named

    Raises
    ------
    FormatError
        If the rows are not all as long as the header, or quotes do not match.

    Examples
    --------
    >>> delimited_table("text;label\nso good;1\n", "x.csv", ",").notes
    ('x.csv is separated by semicolons',)
    """
    own = header_of(text, usual)
    if not _known(own, wanted):
        for separator in SEPARATORS:
            header = header_of(text, separator)
            # a header that is known only so is enough: what does not fit it is an error in the user's own terms
            better = _known(header, wanted) or (len(own) == 1 < len(header) and fitting(text, separator) == 1)
            if separator != usual and better:
                note = f"{shown(path)} is separated by {SEPARATORS[separator]}"
                return Recognised(_read(text, path, separator), (note,))
    return Recognised(_read(text, path, usual), ())


def recognised(text: str, path: str, wanted: Sequence[str] = ()) -> Recognised:
    r"""Return what a file is whose name declares no format: a table whose columns are known, or plain text.

    Parameters
    ----------
    text, path : of the file
    wanted : columns that the user named

    Raises
    ------
    FormatError
        If it is a table, and a few of its rows are not as long as the header.

    Examples
    --------
    >>> recognised("id\tdocument\tlabel\n1\tso good\t1\n", "x.txt").notes
    ('x.txt is a table separated by tabs, and is read as one',)
    >>> recognised("Once upon a time,\nthere was\ta king.\n", "x.txt")
    Recognised(table=None, notes=())
    """
    for separator, name in SEPARATORS.items():
        share = fitting(text, separator) if _known(header_of(text, separator), wanted) else 0.0
        if share >= _MOST_ROWS:
            note = f"{shown(path)} is a table separated by {name}, and is read as one"
            return Recognised(_read(text, path, separator), (note,))
        if share >= _HALF:
            note = (
                f"{shown(path)} looks like a table separated by {name}, and is read as plain text, for only "
                f"{share:.0%} of its rows have as many columns as its first line"
            )
            return Recognised(None, (note,))
    if not _is_object(first_line(text)):
        return Recognised(None, _may_be_table(text, path))
    try:
        table = jsonl_table(text, path)
        text_columns(table, wanted)
    except FormatError as error:
        reason = str(error).partition(";")[0]
        return Recognised(
            None, (f"{shown(path)} looks like JSON Lines, and is read as plain text: {reason}",)
        )
    return Recognised(table, (f"{shown(path)} is JSON Lines, and is read as such",))


def _read(text: str, path: str, separator: str) -> Table:
    return tsv_table(text, path) if separator == "\t" else csv_table(text, path, separator)


def _known(columns: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether they are the header of a table: two or more, of which one is known to hold texts."""
    try:
        return len(columns) > 1 and bool(text_columns(Table("", "line", tuple(columns), []), wanted))
    except FormatError:
        return False


def _is_object(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(strict_json.parse(line), dict)
    except ValueError:
        return False


def _may_be_table(text: str, path: str) -> tuple[str, ...]:
    """A note on a text whose lines all have the same number of separators, which prose hardly has."""
    # the last line of a sample may be cut
    lines = [line for _, line in lines_of(text[:_SAMPLE]) if line.strip()][
        : -1 if len(text) > _SAMPLE else None
    ]
    for separator, name in SEPARATORS.items():
        header = header_of(text, separator)
        prose = sum(line.count(f"{separator} ") for line in lines) > len(lines) / 2
        if (
            len(header) > 1
            and len(lines) > 2
            and not prose
            and fitting("\n".join(lines), separator) >= _MOST_ROWS
        ):
            first = listed((shown(column, longest=30) for column in header), most=5)
            return (
                f"{shown(path)} looks like a table separated by {name}, and is read as plain text, for its first line "
                f"names no column that is known to hold texts ({first}); name one with `text_column`, or add one",
            )
    return ()
