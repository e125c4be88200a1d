"""Which columns hold the text and the label: as told, else by the names that corpora use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.data.table import Table

__all__ = ["label_column", "text_columns"]

_TEXTS = ("text", "document", "sentence", "content", "review", "snippet", "body", "comment")
_LABELS = ("label", "labels", "target", "class", "sentiment", "rating_class")
_ASKED = (("prompt", "completion"), ("instruction", "input", "output"), ("instruction", "input", "response"))


def text_columns(table: Table, wanted: str | None, *, label: str | None = None) -> tuple[str, ...]:
    """Columns whose values make the text of a row: one, or a question and its answer, the answer last.

    Parameters
    ----------
    table : Table
    wanted : str or None
        The user's choice.
    label : str or None, keyword-only
        A column that the user chose for labels, and that is therefore no text.

    Raises
    ------
    FormatError
        If the column is not there, is there twice, or none has a known name.
    """
    free = [column for column in table.columns if column != label]
    if name := wanted or _first(free, _TEXTS):
        return (_required(table, name, "--text-column"),)
    for *asked, answer in _ASKED if table.typed else ():
        if asked[0] in free and answer in free:
            return (*(column for column in asked if column in free), answer)
    raise FormatError(
        f"a file must have a column with texts ({', '.join(_TEXTS)}): got {_listed(table)}, "
        f"in {shown(table.path)}; say which it is with --text-column"
    )


def label_column(table: Table, wanted: str | None, *, text: Sequence[str]) -> str | None:
    """The column of labels, None where there is none.

    Raises
    ------
    FormatError
        If the column that the user chose is not there or is the text, or if the column is there twice.
    """
    if wanted is not None and wanted in text:
        raise FormatError(
            f"text and label must be two columns: got {shown(wanted)} for both, in {shown(table.path)}; "
            "give another --label-column"
        )
    name = wanted or _first([column for column in table.columns if column not in text], _LABELS)
    return None if name is None else _required(table, name, "--label-column")


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    for name in known:
        # an exact name before one that differs in case or blanks
        if found := [c for c in columns if c == name] or [c for c in columns if c.strip().lower() == name]:
            return found[0]
    return None


def _required(table: Table, name: str, option: str) -> str:
    count = table.columns.count(name)
    if count == 0:
        raise FormatError(
            f"the column {shown(name)} must be there: got {_listed(table)}, in {shown(table.path)}; check {option}"
        )
    if count > 1:
        raise FormatError(
            f"the column {shown(name)} must be there once: got it {count} times, in {shown(table.path)}; "
            f"rename one, or give another {option}"
        )
    return name


def _listed(table: Table) -> str:
    return f"the columns {', '.join(shown(column, longest=60) for column in table.columns[:20])}"
