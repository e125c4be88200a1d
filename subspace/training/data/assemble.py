"""From rows to texts and labels: which rows count, and notes on the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.errors import FormatError
from subspace.text import listed, shown
from subspace.training.data.jsonrows import kind_of
from subspace.training.data.labels import class_name, sorted_names
from subspace.training.data.text_columns import label_column, text_columns
from subspace.training.data.turns import Turns, text_of, turns_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.training.data.table import Table
    from subspace.training.data.text_columns import TextColumns

__all__ = ["Assembled", "assembled"]

_ROWS_SHOWN = 5


@dataclass(frozen=True)
class Assembled:
    """What `Examples` has of a table, by the same names."""

    texts: tuple[str, ...]
    labels: tuple[int, ...] | None
    label_names: tuple[str, ...]
    notes: tuple[str, ...]
    prompts: tuple[str, ...] | None = None
    seconds: tuple[str, ...] | None = None
    messages: tuple[Turns, ...] | None = None


class _Row(NamedTuple):
    """Where it begins, the texts or the turns of it that are there, and all its values."""

    number: int
    parts: tuple[str, ...] | Turns
    values: Mapping[str, Any]


def assembled(
    table: Table, text: Sequence[str] = (), label: str | None = None, *, labels: bool = True
) -> Assembled:
    """Return texts, labels, names of the labels, and notes, from the columns that are named or known.

    Parameters
    ----------
    table : the rows
    text, label : columns that the user named
    labels : False: texts alone

    Raises
    ------
    FormatError
        If a column is missing, a value is not a text or not a class, no row is left, or all are of one class.

    Examples
    --------
    >>> from subspace.training.data.table import Table
    >>> table = Table("x.csv", "line", ("text", "label"), [(2, {"text": "a", "label": "x"}),
    ...     (3, {"text": " ", "label": "y"}), (4, {"text": "b", "label": "y"})])
    >>> found = assembled(table)
    >>> found.texts, found.labels, found.label_names, found.notes
    (('a', 'b'), (0, 1), ('x', 'y'), ('1 row without a text was left out: line 3',))
    """
    _require_rows(table, table.rows, "")
    columns = text_columns(table, text, label=label)
    labelled = label_column(table, label, text=columns.names) if labels else None
    rows, notes = _with_text(table, columns)
    classes: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()
    if labelled is not None:
        rows, classes, names, more = _classes(table, rows, labelled, required=label is not None)
    else:
        more = _unlabelled(table, columns.names) if labels else []
    return _texts(rows, columns, classes, names, [*notes, *more])


def _texts(
    rows: list[_Row], columns: TextColumns, labels: tuple[int, ...] | None, names: tuple[str, ...], notes: list[str]
) -> Assembled:
    """Two texts of a classifier stay apart; all others are joined, and it is said where the answer begins."""
    if columns.kind == "turns":
        turns: Any = tuple(row.parts for row in rows)
        return Assembled(tuple(map(text_of, turns)), labels, names, tuple(notes), messages=turns)
    parts: Any = [row.parts for row in rows]
    if labels is not None and columns.kind in ("pair", "named"):
        firsts, seconds = zip(*(("\n".join(each[:-1]), each[-1]) for each in parts), strict=True)
        note = f"{' and '.join(map(shown, columns.names))} are read as pairs"
        return Assembled(firsts, labels, names, (note, *notes), seconds=seconds)
    texts = tuple("\n".join(each) for each in parts)
    if len(columns.names) > 1:
        notes = [f"{' and '.join(map(shown, columns.names))} are joined by line breaks", *notes]
    prompts = None
    if labels is None and columns.kind in ("asked", "named"):
        prompts = tuple("".join(f"{part}\n" for part in each[:-1]) for each in parts)
    return Assembled(texts, labels, names, tuple(notes), prompts=prompts)


def _with_text(table: Table, columns: TextColumns) -> tuple[list[_Row], list[str]]:
    rows: list[_Row] = []
    blank = []
    for number, values in table.rows:
        try:
            parts = turns_of(values.get(columns.names[0])) if columns.kind == "turns" else _parts(values, columns)
        except ValueError as error:
            raise FormatError(
                f"A text is {error} and not a string, in {table.where(number)}; put it in quotes, or choose another "
                "`text_column`"
            ) from None
        if parts is None:
            blank.append(number)
        else:
            rows.append(_Row(number, parts, values))
    notes = _left_out(table, blank, "a text")
    _require_rows(table, rows, "".join(f": {note}" for note in notes))
    return rows, notes


def _parts(values: Mapping[str, Any], columns: TextColumns) -> tuple[str, ...] | None:
    """The values that are not blank; None where the last, which is the text or the answer, is, or one of a pair."""
    parts = [values.get(column) for column in columns.names]
    for part in parts:
        if part is not None and not isinstance(part, str):
            raise ValueError(kind_of(part))
    filled = tuple(part for part in parts if part and not part.isspace())
    if not filled or filled[-1] != parts[-1] or (columns.kind == "pair" and len(filled) < len(parts)):
        return None
    return filled


def _classes(
    table: Table, rows: list[_Row], column: str, *, required: bool
) -> tuple[list[_Row], tuple[int, ...] | None, tuple[str, ...], list[str]]:
    names = [_class(table, row.number, row.values.get(column)) for row in rows]
    if not required and not any(names):
        return rows, None, (), [f"the column {shown(column)} is empty, so the examples have no labels"]
    missing = [row.number for row, name in zip(rows, names, strict=True) if name is None]
    distinct = sorted_names(name for name in names if name is not None)
    _require_two(table, column, distinct)
    index = {name: i for i, name in enumerate(distinct)}
    kept = [row for row, name in zip(rows, names, strict=True) if name is not None]
    labels = tuple(index[name] for name in names if name is not None)
    return kept, labels, distinct, _left_out(table, missing, "a label")


def _class(table: Table, number: int, label: object) -> str | None:
    try:
        return class_name(label)
    except ValueError as error:
        raise FormatError(
            f"A label is {error} and not a class, in {table.where(number)}; give each class a name or a whole "
            "number, or choose another `label_column`"
        ) from None


def _left_out(table: Table, numbers: Sequence[int], what: str) -> list[str]:
    if not numbers:
        return []
    places = listed(numbers, most=_ROWS_SHOWN)
    if len(numbers) == 1:
        return [f"1 row without {what} was left out: {table.unit} {places}"]
    return [f"{len(numbers):,} rows without {what} were left out: {table.unit}s {places}"]


def _unlabelled(table: Table, columns: Sequence[str]) -> list[str]:
    others = [column for column in table.columns if column not in columns]
    if not others:
        return []
    names = listed((shown(column, longest=60) for column in others), most=20)
    return [f"no column with labels was recognised among {names}, so the examples have none"]


def _require_rows(table: Table, rows: Sequence[object], why: str) -> None:
    if not rows:
        raise FormatError(f"No example in {shown(table.path)}{why}; give a file with texts")


def _require_two(table: Table, column: str, names: tuple[str, ...]) -> None:
    if len(names) < 2:
        found = f"all labels are {shown(names[0])}" if names else "there is no label"
        raise FormatError(
            f"A classifier needs at least two classes, and {found}, in the column {shown(column)} of "
            f"{shown(table.path)}; add the other classes, or turn `labels` off to train on the texts alone"
        )
