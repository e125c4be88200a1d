"""Records as comma-separated values that a spreadsheet may open: the one place where text is made safe for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subspace.text import shown

__all__ = ["as_csv", "csv_cell"]

# the wide forms start a formula in East Asian versions of Excel
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "\0")


def as_csv(records: Sequence[Mapping[str, Any]], *, header: bool = True) -> str:
    r"""Records as CSV under a line of headings; text that a spreadsheet would run as a formula gets an apostrophe.

    Examples
    --------
    >>> as_csv([{"module": "=q", "phi": 0.5}])
    "module,phi\n'=q,0.5\n"
    """
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    # a row may have fewer columns than another, and may be the first
    columns = list(dict.fromkeys(column for record in records for column in record))
    if records and header:
        writer.writerow(columns)
    for record in records:
        writer.writerow([csv_cell(record.get(column)) for column in columns])
    return out.getvalue()


def csv_cell(value: Any) -> Any:
    """A value as a cell that no spreadsheet runs as a formula; text is escaped to one line.

    Examples
    --------
    >>> csv_cell("=cmd()"), csv_cell(0.5)
    ("'=cmd()", 0.5)
    """
    if isinstance(value, str):
        text = shown(value, longest=100_000)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return value
