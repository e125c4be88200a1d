"""Rows of CSV and TSV: the first line names the columns.

CSV is quoted as RFC 4180 says. TSV is not quoted at all: in corpora of reviews a double quote is a character like
others, and often unpaired.
"""

from __future__ import annotations

import csv
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.text import counted, shown
from subspace.training.data.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["csv_table", "lines_of", "tsv_table"]

_LONGEST_FIELD = 2**31 - 1  # what a C long holds everywhere


def csv_table(text: str, path: str) -> Table:
    r"""Return the rows of comma-separated text; a quoted field may hold commas, line breaks and doubled quotes.

    Raises
    ------
    FormatError
        If a quote is not closed or is followed by text, or a row is not as long as the header.

    Examples
    --------
    >>> csv_table('text,label\n"one,\ntwo",a\nthree,b\n', "x.csv").rows
    [(2, {'text': 'one,\ntwo', 'label': 'a'}), (4, {'text': 'three', 'label': 'b'})]
    """
    with _long_fields():
        return _table(path, _quoted(text, path), "quote a text that holds a comma or a line break")


def tsv_table(text: str, path: str) -> Table:
    r"""Return the rows of tab-separated text, with quotes kept as they are (``csv.QUOTE_NONE``).

    Raises
    ------
    FormatError
        If a row is not as long as the header.

    Examples
    --------
    >>> tsv_table('document\tlabel\n"so good\t1\n', "x.tsv").rows
    [(2, {'document': '"so good', 'label': '1'})]
    """
    rows = ((number, line.split("\t")) for number, line in lines_of(text) if line)
    return _table(
        path, rows, "a text in a .tsv holds no tab and no line break: take them out, or save as .csv"
    )


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    r"""Return numbered lines without their ends; only ends that an editor sees count, not U+2028 and the like.

    Examples
    --------
    >>> list(lines_of("a\r\n\u2028b"))
    [(1, 'a'), (2, '\u2028b')]
    """
    end = "\n" if "\n" in text else "\r"
    return ((number, line.removesuffix("\r")) for number, line in enumerate(text.split(end), 1))


def _quoted(text: str, path: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begins = 1
    try:
        for row in reader:
            yield begins, row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise FormatError(
            f"The quotes of this CSV do not match: {shown(error)}, in {shown(path)} line {begins} or the lines that "
            "its row goes on in; double the quotes within a quoted text"
        ) from None


def _table(path: str, numbered: Iterable[tuple[int, list[str]]], cure: str) -> Table:
    rows = ((number, row) for number, row in numbered if row)
    _, header = next(rows, (1, []))
    if len(header) > 1:
        rows = ((number, row) for number, row in rows if len(row) > 1 or row[0].strip())
    return Table(path, "line", tuple(header), [(n, _named(row, header, n, path, cure)) for n, row in rows])


def _named(row: list[str], header: list[str], number: int, path: str, cure: str) -> dict[str, str]:
    if len(row) != len(header):
        raise FormatError(
            f"This row has {counted(len(row), 'column')} and the header {len(header)}, in {shown(path)} line {number}; "
            f"{cure}"
        )
    return dict(zip(header, row, strict=True))


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
