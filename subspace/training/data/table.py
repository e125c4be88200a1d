"""Rows of any file: columns by name, and the place of each row in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """Rows of a file.

    Attributes
    ----------
    path : str
        The file.
    unit : str
        What `rows` are counted in: "line" or, in a list that may share lines, "item". Both begin at 1.
    columns : tuple of str
        As in the header, twice if it stands there twice; of JSON objects all keys, in order of appearance.
    rows : sequence of (int, mapping)
        Where the row begins, and its values by column.
    typed : bool
        Whether values have types of their own (JSON), or all are strings.
    """

    path: str
    unit: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[int, Mapping[str, Any]]]
    typed: bool = False

    def where(self, number: int) -> str:
        """Return the place of a row, for an error message."""
        return f"{shown(self.path)} {self.unit} {number}"
