"""The examples that a run trains on: the user's, or a text that comes with Python."""

from __future__ import annotations

from subspace.training.data.examples import Examples, read_examples
from subspace.training.data.pydoc import documentation

__all__ = ["load_examples"]


def load_examples(
    path: str | None, *, text_column: str | None = None, label_column: str | None = None, labels: bool = True
) -> Examples:
    """Return the examples in a file or folder, Python's own help topics where none is named.

    Parameters
    ----------
    path : str or None
    text_column, label_column, labels : keyword-only
        As `read_examples` has them.

    Raises
    ------
    FileError, FormatError
        If they cannot be read.
    """
    if path is None:
        return documentation()
    return read_examples(path, text_column=text_column, label_column=label_column, labels=labels)
