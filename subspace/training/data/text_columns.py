"""Which columns hold the text and the label: those that the user names, else by the names that corpora use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.data.table import Table

__all__ = ["TextColumns", "label_column", "text_columns"]

_TEXTS = ("text", "document", "sentence", "content", "review", "snippet", "body", "comment")
_LABELS = ("label", "labels", "target", "class", "sentiment", "rating_class")
_PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("text_a", "text_b"), ("text1", "text2"), ("sentence_a", "sentence_b"),
)  # fmt: skip
# what is given, in one or two columns, and the answer
_ASKED = (
    ("prompt", "completion"), ("instruction", "input", "output"), ("instruction", "input", "response"),
    ("prompt", "response"), ("question", "answer"), ("input", "output"),
)  # fmt: skip
_TURNS = ("messages", "conversations")


@dataclass(frozen=True)
class TextColumns:
    """The columns whose values make up the text of a row, in this order.

    Attributes
    ----------
    names : tuple of str
    kind : str
        "text": one column; "pair": two texts that are compared; "asked": a question, in one column or more, and its
        answer; "turns": one column with the turns of a conversation; "named": two or more that the user named.
    """

    names: tuple[str, ...]
    kind: str


def text_columns(table: Table, wanted: Sequence[str] = (), *, label: str | None = None) -> TextColumns:
    """Return the columns whose values make up the text of a row.

    Parameters
    ----------
    table : Table
    wanted : sequence of str
        The columns that the user named.
    label : str or None, keyword-only
        The column that the user named for labels, which is therefore not a text.

    Raises
    ------
    FormatError
        If a column is not there, is there twice, or none has a known name.

    Examples
    --------
    >>> from subspace.training.data.table import Table
    >>> text_columns(Table("mrpc.csv", "line", ("id", "sentence1", "sentence2"), []))
    TextColumns(names=('sentence1', 'sentence2'), kind='pair')
    """
    if wanted:
        names = tuple(_required(table, name, "text_column") for name in dict.fromkeys(wanted))
        return TextColumns(names, "named" if len(names) > 1 else _one(table, names[0]))
    free = [column for column in table.columns if column != label]
    single, pair = _first(free, _TEXTS), _pair(free)
    if pair and single in (None, *pair):
        return TextColumns(tuple(_required(table, name, "text_column") for name in pair), "pair")
    if single:
        return TextColumns((_required(table, single, "text_column"),), _one(table, single))
    return _turns(table, free) or _asked(table, free) or _unrecognised(table)


def _one(table: Table, name: str) -> str:
    """A list of objects is a conversation, whatever its column is called."""
    lists = (value for _, values in table.rows if isinstance(value := values.get(name), list))
    return "turns" if any(value and isinstance(value[0], dict) for value in lists) else "text"


def _pair(free: Sequence[str]) -> tuple[str, str] | None:
    for names in _PAIRS:
        first, second = (_first(free, (name,)) for name in names)
        if first and second:
            return first, second
    return None


def _turns(table: Table, free: Sequence[str]) -> TextColumns | None:
    names = [name for name in _TURNS if name in free and _one(table, name) == "turns"]
    return TextColumns((names[0],), "turns") if names else None


def _asked(table: Table, free: Sequence[str]) -> TextColumns | None:
    for *asked, answer in _ASKED:
        question, found = _first(free, asked[:1]), _first(free, (answer,))
        if question and found:
            more = [name for name in (_first(free, (each,)) for each in asked[1:]) if name]
            names = (question, *more, found)
            return TextColumns(tuple(_required(table, name, "text_column") for name in names), "asked")
    return None


def _unrecognised(table: Table) -> TextColumns:
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
            f"The column {shown(name)} is there {counted(count, 'time')}, in {shown(table.path)}; rename one, or give "
            f"another `{parameter}`"
        )
    return name


def _columns(table: Table) -> str:
    return f"the columns {listed((shown(column, longest=60) for column in table.columns), most=20)}"
