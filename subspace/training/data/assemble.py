"""From the rows of one table to examples: which rows count, and notes on the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.errors import FormatError
from subspace.text import listed, shown
from subspace.training.data.jsonrows import kind_of
from subspace.training.data.labels import class_name
from subspace.training.data.text_columns import label_column, text_columns
from subspace.training.data.turns import Turns, text_of, turns_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.training.data.table import Table

__all__ = ["Part", "Row", "assembled", "places"]

_ROWS_SHOWN = 5


class Row(NamedTuple):
    """One example: see `Examples`, which has the same of all of them; and where it is from."""

    text: str
    label: str | None = None
    prompt: str | None = None
    second: str | None = None
    turns: Turns | None = None
    number: int = 1


@dataclass(frozen=True)
class Part:
    """What one file has.

    Attributes
    ----------
    path : str
    rows : list of Row
    notes : list of str
    column : str or None
        That of the labels, None where there are none.
    unit : str
        What the numbers of the rows count, see `Table`.
    """

    path: str
    rows: list[Row]
    notes: list[str]
    column: str | None = None
    unit: str = "line"


def assembled(
    table: Table, text: Sequence[str] = (), label: str | None = None, *, labels: bool = True
) -> Part:
    """Return the examples of a table, from the columns that are named or known; a label may be None.

    Parameters
    ----------
    table : the rows
    text, label : columns that the user named
    labels : False: texts alone

    Raises
    ------
    FormatError
        If a column is missing, a value is not a text or not a class, or no row is left.

    Examples
    --------
    >>> from subspace.training.data.table import Table
    >>> table = Table("x.csv", "line", ("text", "label"), [(2, {"text": "a", "label": "x"}),
    ...     (3, {"text": " ", "label": "y"}), (4, {"text": "b", "label": "y"})])
    >>> part = assembled(table)
    >>> [(row.text, row.label) for row in part.rows], part.notes
    ([('a', 'x'), ('b', 'y')], ['1 row without a text was left out: line 3'])
    """
    _require_rows(table, table.rows, "")
    columns = text_columns(table, text, label=label)
    column = label_column(table, label, text=columns.names) if labels else None
    named = [] if column or not labels else _unlabelled(table, columns.names)
    if column and label is None and not any(_class(table, n, row.get(column)) for n, row in table.rows):
        named = [f"the column {shown(column)} is empty, so the examples have no labels"]
        column = None
    kind = columns.kind
    if kind in ("pair", "named"):
        kind = "pair" if column else ("asked" if kind == "named" else "joined")
    rows, notes = _rows(table, columns.names, kind, column)
    if len(columns.names) > 1:
        how = "read as pairs" if kind == "pair" else "joined by line breaks"
        notes.insert(0, f"{' and '.join(map(shown, columns.names))} are {how}")
    return Part(table.path, rows, [*notes, *named], column, table.unit)


def _rows(table: Table, names: Sequence[str], kind: str, column: str | None) -> tuple[list[Row], list[str]]:
    rows, blank = [], []
    for number, values in table.rows:
        try:
            row = _row(values, names, kind)
        except ValueError as error:
            raise FormatError(
                f"A text is {error} and not a string, in {table.where(number)}; put it in quotes, or choose another "
                "`text_column`"
            ) from None
        if row is None:
            blank.append(number)
        else:
            label = _class(table, number, values.get(column)) if column else None
            rows.append(row._replace(number=number, label=label))
    notes = _left_out(table, blank)
    _require_rows(table, rows, "".join(f": {note}" for note in notes))
    return rows, notes


def _row(values: Mapping[str, Any], names: Sequence[str], kind: str) -> Row | None:
    """The texts that are not blank; None where the last, which is the text or the answer, is, or one of two."""
    if kind == "turns":
        turns = turns_of(values.get(names[0]))
        return Row(text_of(turns), turns=turns) if turns else None
    parts = [values.get(name) for name in names]
    for part in parts:
        if part is not None and not isinstance(part, str):
            raise ValueError(kind_of(part))
    filled = [part for part in parts if part and not part.isspace()]
    if not filled or filled[-1] != parts[-1] or (kind in ("pair", "joined") and len(filled) < len(parts)):
        return None
    *filled, last = filled
    if kind == "pair":
        return Row("\n".join(filled), second=last)
    prompt = "".join(f"{part}\n" for part in filled)
    return Row(prompt + last, prompt=prompt if kind == "asked" else None)


def _class(table: Table, number: int, label: object) -> str | None:
    try:
        return class_name(label)
    except ValueError as error:
        raise FormatError(
            f"A label is {error} and not a class, in {table.where(number)}; give each class a name or a whole "
            "number, or choose another `label_column`"
        ) from None


def places(unit: str, numbers: Sequence[int]) -> str:
    """Return where rows are, in words.

    Examples
    --------
    >>> places("line", [3]), places("item", range(9))
    ('line 3', 'items 0, 1, 2, 3, 4 and 4 more')
    """
    return f"{unit if len(numbers) == 1 else f'{unit}s'} {listed(numbers, most=_ROWS_SHOWN)}"


def _left_out(table: Table, numbers: Sequence[int]) -> list[str]:
    if not numbers:
        return []
    rows = "1 row without a text was" if len(numbers) == 1 else f"{len(numbers):,} rows without a text were"
    return [f"{rows} left out: {places(table.unit, numbers)}"]


def _unlabelled(table: Table, columns: Sequence[str]) -> list[str]:
    others = [column for column in table.columns if column not in columns]
    if not others:
        return []
    names = listed((shown(column, longest=60) for column in others), most=20)
    return [f"no column with labels was recognised among {names}, so the examples have none"]


def _require_rows(table: Table, rows: Sequence[object], why: str) -> None:
    if not rows:
        raise FormatError(f"No example in {shown(table.path)}{why}; give a file with texts")
