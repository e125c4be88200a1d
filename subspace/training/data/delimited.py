"""Rows of text that is separated by commas, semicolons or tabs: the first line names the columns.

Between commas and semicolons texts are quoted as RFC 4180 says. Between tabs they are not quoted at all, unless the
rows fit the header only so: in corpora of reviews a double quote is a character like others, and often unpaired.
"""

from __future__ import annotations

import csv
import io
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.text import counted, shown
from subspace.training.data.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SEPARATORS", "csv_table", "first_line", "fitting", "header_of", "lines_of", "tsv_table"]

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons"}
_LONGEST_FIELD = 2**31 - 1  # what a C long holds everywhere
_LONGEST_HEADER = 2**16  # characters, with blank lines before it; less than a field may have by default
_EXCEL = re.compile(r"sep=(.)\r?\n")  # its first line, which is no row


def csv_table(text: str, path: str, separator: str = ",") -> Table:
    r"""Return the rows of separated text; a quoted field may hold separators, line breaks and doubled quotes.

    Raises
    ------
    FormatError
        If a quote is not closed or is followed by text, or a row is not as long as the header.

    Examples
    --------
    >>> csv_table('text,label\n"one,\ntwo",a\nthree,b\n', "x.csv").rows
    [(2, {'text': 'one,\ntwo', 'label': 'a'}), (4, {'text': 'three', 'label': 'b'})]
    """
    what = SEPARATORS[separator].removesuffix("s")
    with _long_fields():
        return _table(
            path, _quoted(text, path, separator), f"quote a text that holds a {what} or a line break"
        )


def tsv_table(text: str, path: str) -> Table:
    r"""Return the rows of tab-separated text, with quotes kept as they are (``csv.QUOTE_NONE``).

    A file whose rows are as long as its header only where quotes are read as in CSV is read so.

    Raises
    ------
    FormatError
        If a row is not as long as the header.

    Examples
    --------
    >>> tsv_table('document\tlabel\n"so good\t1\n', "x.tsv").rows
    [(2, {'document': '"so good', 'label': '1'})]
    """
    if '"' in text and fitting(text, "\t", quoted=False) < 1 and fitting(text, "\t", quoted=True) == 1:
        return csv_table(text, path, "\t")
    rows = ((number, line.split("\t")) for number, line in lines_of(text) if line)
    return _table(
        path, rows, "a text between tabs holds no tab and no line break: take them out, or save as .csv"
    )


def header_of(text: str, separator: str) -> list[str]:
    r"""Return the columns that the first line names; [] where there is none.

    Examples
    --------
    >>> header_of("\nid;text\n1;so good\n", ";")
    ['id', 'text']
    """
    if excel := _EXCEL.match(text):
        text, separator = text[excel.end() :], excel[1]
    line = first_line(text)
    try:
        return line.split("\t") if separator == "\t" else next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # such as a carriage return within the line
        return []


def first_line(text: str) -> str:
    """Return the first line that is not blank, or as much of it as the header of a table may have."""
    return next((line for _, line in lines_of(text[:_LONGEST_HEADER]) if line.strip()), "")


def fitting(text: str, separator: str, *, quoted: bool | None = None) -> float:
    r"""Return the share of the rows that are as long as the header, blank lines aside; 0 where there is no row.

    Parameters
    ----------
    text, separator : the file, and one of `SEPARATORS`
    quoted : whether quotes are read as in CSV; None: as more rows fit between tabs, and always elsewhere

    Examples
    --------
    >>> fitting("id,text\n1,one\n2,two\n3\n4,four, five\n", ",")
    0.5
    """
    if quoted is None and separator == "\t":
        plain = fitting(text, separator, quoted=False)
        return plain if plain == 1 or '"' not in text else max(plain, fitting(text, separator, quoted=True))
    if quoted is not False:
        try:
            with _long_fields():
                sizes = [len(row) for _, row in _quoted(text, "", separator) if any(map(str.strip, row))]
        except FormatError:
            return 0.0
    else:
        sizes = [line.count(separator) + 1 for _, line in lines_of(text) if line.strip()]
    return sizes[1:].count(sizes[0]) / (len(sizes) - 1) if len(sizes) > 1 else 0.0


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    r"""Return numbered lines without their ends; only ends that an editor sees count, not U+2028 and the like.

    Examples
    --------
    >>> list(lines_of("a\r\n\u2028b"))
    [(1, 'a'), (2, '\u2028b')]
    """
    end = "\n" if "\n" in text else "\r"
    return ((number, line.removesuffix("\r")) for number, line in enumerate(text.split(end), 1))


def _quoted(text: str, path: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    excel = _EXCEL.match(text)
    lines = io.StringIO(text[excel.end() :] if excel else text, newline="")
    reader = csv.reader(lines, delimiter=excel[1] if excel else separator, strict=True)
    before = begins = 2 if excel else 1
    try:
        for row in reader:
            yield begins, row
            begins = reader.line_num + before
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
