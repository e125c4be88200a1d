"""Rows of JSON: an object per line, or a list of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.checkpoints import strict_json
from subspace.errors import FormatError
from subspace.text import shown
from subspace.training.data.delimited import lines_of
from subspace.training.data.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["json_table", "jsonl_table", "kind_of"]

_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}


def jsonl_table(text: str, path: str) -> Table:
    r"""Return the rows of JSON Lines; blank lines are passed over.

    Raises
    ------
    FormatError
        If a line is not valid JSON (as `strict_json.parse` has it) or not an object.

    Examples
    --------
    >>> jsonl_table('{"text": "so good"}\n\n{"text": "so bad"}\n', "x.jsonl").rows
    [(1, {'text': 'so good'}), (3, {'text': 'so bad'})]
    """
    parsed = ((n, _parsed(line, f"{shown(path)} line {n}")) for n, line in lines_of(text) if line.strip())
    return _table(path, "line", parsed)


def json_table(text: str, path: str) -> Table:
    """Return the rows of a JSON list of objects; a file that does not begin like a list is read as JSON Lines.

    Raises
    ------
    FormatError
        If the text is not valid JSON or an item is not an object.

    Examples
    --------
    >>> json_table('[{"text": "so good"}, {"text": "so bad"}]', "x.json").rows
    [(1, {'text': 'so good'}), (2, {'text': 'so bad'})]
    """
    if not text.lstrip().startswith("["):
        return jsonl_table(text, path)
    return _table(path, "item", enumerate(_parsed(text, shown(path)), 1))


def kind_of(value: object) -> str:
    """Return what a value of JSON, or of another typed table, is in words.

    Examples
    --------
    >>> kind_of([1, 2]), kind_of(0.5)
    ('a list', 'the number 0.5')
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"the number {shown(value, longest=40)}"
    return _KINDS.get(type(value)) or f"of the type {type(value).__name__}"


def _parsed(text: str, where: str) -> Any:
    try:
        return strict_json.parse(text)
    except ValueError as error:
        raise FormatError(
            f"Invalid JSON: {shown(error)}, in {where}; write one object per line (.jsonl, .json) or one list of "
            "objects (.json)"
        ) from None


def _table(path: str, unit: str, values: Iterable[tuple[int, Any]]) -> Table:
    rows = []
    for number, value in values:
        if not isinstance(value, dict):
            raise FormatError(
                f"A row is {kind_of(value)} and not a JSON object, in {shown(path)} {unit} {number}; write it as "
                '{"text": ..., "label": ...}'
            )
        rows.append((number, value))
    return Table(path, unit, tuple(dict.fromkeys(key for _, row in rows for key in row)), rows, typed=True)
