"""From rows to texts and labels: which rows count, and notes on the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.text import listed, shown
from subspace.training.data.jsonrows import kind_of
from subspace.training.data.labels import class_name, sorted_names
from subspace.training.data.text_columns import label_column, text_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.training.data.table import Table

__all__ = ["Assembled", "assembled"]

# texts, labels, names of the labels, notes
Assembled = tuple[tuple[str, ...], tuple[int, ...] | None, tuple[str, ...], tuple[str, ...]]
# where a row begins, its text, all its values
_Rows = list[tuple[int, str, "Mapping[str, Any]"]]
_ROWS_SHOWN = 5


def assembled(
    table: Table, text: str | None = None, label: str | None = None, *, labels: bool = True
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
    >>> assembled(table)
    (('a', 'b'), (0, 1), ('x', 'y'), ('1 row without a text was left out: line 3',))
    """
    _require_rows(table, table.rows, "")
    columns = text_columns(table, text, label=label)
    labelled = label_column(table, label, text=columns) if labels else None
    rows, notes = _with_text(table, columns)
    if labelled is None:
        unlabelled = _unlabelled(table, columns) if labels else ()
        return tuple(text for _, text, _ in rows), None, (), (*notes, *unlabelled)
    return _classes(table, rows, labelled, notes, required=label is not None)


def _with_text(table: Table, columns: Sequence[str]) -> tuple[_Rows, list[str]]:
    rows: _Rows = []
    blank = []
    for number, values in table.rows:
        try:
            text = _text(values, columns)
        except ValueError as error:
            raise FormatError(
                f"A text is {error} and not a string, in {table.where(number)}; put it in quotes, or choose another "
                "`text_column`"
            ) from None
        if text is None:
            blank.append(number)
        else:
            rows.append((number, text, values))
    notes = [f"{' and '.join(map(shown, columns))} are joined by line breaks"] if len(columns) > 1 else []
    notes += _left_out(table, blank, "a text")
    _require_rows(table, rows, "".join(f": {note}" for note in notes[-1:]))
    return rows, notes


def _text(values: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """The values, joined; None where the last of them, which is the text or the answer, is missing or blank."""
    parts = [values.get(column) for column in columns]
    for part in parts:
        if part is not None and not isinstance(part, str):
            raise ValueError(kind_of(part))
    filled = [part for part in parts if part and not part.isspace()]
    return "\n".join(filled) if filled and filled[-1] == parts[-1] else None


def _classes(table: Table, rows: _Rows, column: str, notes: list[str], *, required: bool) -> Assembled:
    names = [_class(table, number, values.get(column)) for number, _, values in rows]
    if not required and not any(names):
        note = f"the column {shown(column)} is empty, so the examples have no labels"
        return tuple(text for _, text, _ in rows), None, (), (*notes, note)
    missing = [number for (number, _, _), name in zip(rows, names, strict=True) if name is None]
    distinct = sorted_names(name for name in names if name is not None)
    _require_two(table, column, distinct)
    index = {name: i for i, name in enumerate(distinct)}
    kept = [(text, index[name]) for (_, text, _), name in zip(rows, names, strict=True) if name is not None]
    texts, labels = zip(*kept, strict=True)
    return texts, labels, distinct, (*notes, *_left_out(table, missing, "a label"))


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
