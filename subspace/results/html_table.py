"""A result as a table of HTML, for notebooks: its headline, its first rows, and what each column means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from subspace.results.cells import cell
from subspace.results.columns import Column, described
from subspace.text import counted

__all__ = ["as_html"]


def as_html(
    facts: Sequence[str], columns: Sequence[Column], records: Sequence[Mapping[str, Any]], *, most: int
) -> str:
    """The facts of the headline, and a table of at most `most` records; a heading shows what its column means."""
    head = "".join(f'<th title="{escape(described(each))}">{escape(each.label)}</th>' for each in columns)
    body = "".join(f"<tr>{_cells(record, columns)}</tr>" for record in records[:most])
    rest = len(records) - most
    more = f"<p>and {counted(rest, 'row')} more: see <code>.to_pandas()</code></p>" if rest > 0 else ""
    above = "".join(f"<p>{escape(fact)}</p>" for fact in facts)
    return f"{above}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cells(record: Mapping[str, Any], columns: Sequence[Column]) -> str:
    return "".join(f"<td>{escape(cell(record[each.name]))}</td>" for each in columns)
