"""The examples that a run trains on: the user's, or a text that comes with Python; as they are, or as a control."""

from __future__ import annotations

import os
from difflib import get_close_matches

from subspace.errors import FileError, FormatError, ValueRangeError
from subspace.text import shown
from subspace.training.data.control_text import CONTROLS, control_examples
from subspace.training.data.examples import Examples, read_examples
from subspace.training.data.pydoc import documentation

__all__ = ["load_examples"]


def load_examples(
    data: str | None, *, text_column: str | None = None, label_column: str | None = None, labels: bool = True
) -> Examples:
    """Return the examples in a file or folder, Python's own help topics where none is named.

    Parameters
    ----------
    data : str or None
        A path. Or a control, of Python's help topics or of a path: "scrambled" and "scrambled:reviews.txt" have their
        characters shuffled, "scrambled-words" its words, "uniform" is as long and random; see `control_examples`.
        A path of that very name comes first.
    text_column, label_column, labels : keyword-only
        As `read_examples` has them.

    Raises
    ------
    FileError, FormatError
        If they cannot be read.
    ValueRangeError
        If a control has no path after its colon.

    Examples
    --------
    >>> sorted(load_examples("scrambled").texts[0]) == sorted(load_examples(None).texts[0])
    True
    """
    control, path = _parted(data)
    if control is not None:
        found = load_examples(path, text_column=text_column, label_column=label_column, labels=labels)
        return control_examples(found, control)
    if path is None:
        _require_no_column(text_column or label_column)
        return documentation()
    return read_examples(path, text_column=text_column, label_column=label_column, labels=labels)


def _parted(data: str | None) -> tuple[str | None, str | None]:
    """Which control is asked for, and the path, None for Python's help topics."""
    if data is None or os.path.lexists(data):
        return None, data
    control, colon, path = os.fspath(data).partition(":")
    if control not in CONTROLS:
        _require_no_slip(data, control)
        return None, data
    if colon and not path:
        raise ValueRangeError(
            f"No path follows '{shown(data)}'; give `data` as {control}:reviews.txt, or as {control} for Python's help "
            "topics"
        )
    return control, path or None


def _require_no_slip(data: str, word: str) -> None:
    """Refuse a name that is no path and nearly the name of a control."""
    meant = get_close_matches(word, CONTROLS, n=1, cutoff=0.8)
    if meant:
        control = data.replace(word, meant[0], 1)
        raise FileError(
            f"No such file or directory: {shown(data)}; check the path, or give `data` as {shown(control)}"
        )


def _require_no_column(column: str | None) -> None:
    if column is not None:
        raise FormatError(
            f"Python's help topics have no columns, and the column {shown(column)} was named; leave it out, or give "
            "`data` a table"
        )
