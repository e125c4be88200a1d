"""The numbers of a figure as text: strict JSON, or CSV with a line per cell.

Titles are a stranger's text. In JSON they are whole, escaped to ASCII; in CSV they are one line, shortened,
and a cell that a spreadsheet would take for a formula gets a leading apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from subspace.plots.heatmap import Drawn, masked
from subspace.text import shown

__all__ = ["CSV_START", "JSON_START", "as_csv", "as_json"]

JSON_START = b'{"format": "subspace figure data"'
_COLUMNS = ("panel", "title", "i", "j", "phi", "chance", "state", "vmin", "vmax")
CSV_START = ",".join(_COLUMNS).encode()
# the wide forms start a formula in East Asian versions of Excel
_FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_LEFT_OUT = {"lower": "j < i", "upper": "i < j", None: None}


def as_json(panels: Sequence[Drawn]) -> bytes:
    """Return the drawn panels as strict JSON, ASCII: undefined phi is null, `masked` says what is grey."""
    content = {
        "format": "subspace figure data",
        "version": 1,
        "phi": "phi[i - i_start][j - j_start]; null: undefined; chance of a cell is max(i, j) / d",
        "panels": [_record(what) for what in panels],
    }
    return json.dumps(content, allow_nan=False).encode("ascii") + b"\n"


def as_csv(panels: Sequence[Drawn]) -> bytes:
    """Return the drawn panels as CSV in UTF-8, a line per cell; `state` is drawn, masked or undefined."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for number, what in enumerate(panels, start=1):
        writer.writerows(_lines(number, what))
    return stream.getvalue().encode("utf-8", "backslashreplace")


def _record(what: Drawn) -> dict[str, Any]:
    panel = what.panel
    first, last = panel.chance()
    return {
        "title": panel.title,
        "i_label": panel.i_label,
        "j_label": panel.j_label,
        "i_start": panel.i_start,
        "j_start": panel.j_start,
        "d": panel.d,
        "chance": {"first_cell": first, "last_cell": last},
        "limits": [what.vmin, what.vmax],
        "masked": _LEFT_OUT[what.mask],
        "phi": [[None if np.isnan(v) else float(v) for v in row] for row in panel.grid()],
    }


def _lines(number: int, what: Drawn) -> Iterator[tuple[object, ...]]:
    panel, title = what.panel, _plain(what.panel.title)
    grid, grey = panel.grid(), masked(what.panel, what.mask)
    for (row, column), phi in np.ndenumerate(grid):
        i, j = panel.i_start + row, panel.j_start + column
        undefined = bool(np.isnan(phi))
        state = "masked" if grey[row, column] else "undefined" if undefined else "drawn"
        value = "" if undefined else repr(float(phi))
        yield number, title, i, j, value, min(max(i, j) / panel.d, 1.0), state, what.vmin, what.vmax


def _plain(cell: str) -> str:
    """Return a title as one line of a text cell that no spreadsheet runs as a formula."""
    line = shown(cell)
    return f"'{line}" if line.startswith(_FORMULA_STARTS) else line
