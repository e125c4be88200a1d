"""Which columns hold the text and the label: those that the user names, else by the names that corpora use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.text import listed, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.data.table import Table

__all__ = ["label_column", "text_columns"]

_TEXTS = ("text", "document", "sentence", "content", "review", "snippet", "body", "comment")
_LABELS = ("label", "labels", "target", "class", "sentiment", "rating_class")
_ASKED = (("prompt", "completion"), ("instruction", "input", "output"), ("instruction", "input", "response"))


def text_columns(table: Table, wanted: str | None, *, label: str | None = None) -> tuple[str, ...]:
    """Return the columns whose values make up the text of a row: one, or a question and its answer, in this order.

    Parameters
    ----------
    table : Table
    wanted : str or None
        The column that the user named.
    label : str or None, keyword-only
        The column that the user named for labels, which is therefore not a text.

    Raises
    ------
    FormatError
        If the column is not there, is there twice, or none has a known name.
    """
    free = [column for column in table.columns if column != label]
    if name := wanted or _first(free, _TEXTS):
        return (_required(table, name, "text_column"),)
    for *asked, answer in _ASKED if table.typed else ():
        if asked[0] in free and answer in free:
            return (*(column for column in asked if column in free), answer)
    raise FormatError(
        f"No column with texts was recognised in {shown(table.path)}: it has {_columns(table)}, and none of them is "
        f"called {', '.join(_TEXTS)}; rename it to text, or name it with `text_column`"
    )


def label_column(table: Table, wanted: str | None, *, text: Sequence[str]) -> str | None:
    """Return the column of labels, None where there is none.

    Parameters
    ----------
    table : Table
    wanted : str or None
        The column that the user named.
    text : sequence of str, keyword-only
        The columns of the text, which are not the label.

    Raises
    ------
    FormatError
        If the column that the user chose is not there or is the text, or if the column is there twice.
    """
    if wanted is not None and wanted in text:
        raise FormatError(
            f"The column {shown(wanted)} cannot be both text and label, in {shown(table.path)}; give another "
            "`label_column`"
        )
    name = wanted or _first([column for column in table.columns if column not in text], _LABELS)
    return None if name is None else _required(table, name, "label_column")


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    for name in known:
        # an exact name before one that differs in case or blanks
        if found := [c for c in columns if c == name] or [c for c in columns if c.strip().lower() == name]:
            return found[0]
    return None


def _required(table: Table, name: str, parameter: str) -> str:
    count = table.columns.count(name)
    if count == 0:
        raise FormatError(
            f"No column called '{shown(name)}' in {shown(table.path)}: it has {_columns(table)}; check `{parameter}`"
        )
    if count > 1:
        raise FormatError(
            f"The column {shown(name)} is there {count} times, in {shown(table.path)}; rename one, or give another "
            f"`{parameter}`"
        )
    return name


def _columns(table: Table) -> str:
    return f"the columns {listed((shown(column, longest=60) for column in table.columns), most=20)}"
