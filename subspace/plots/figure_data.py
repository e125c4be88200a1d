"""The numbers of a figure as text: strict JSON, or CSV with a line per cell.

Titles and names of modules are untrusted text. In JSON they are whole, escaped to ASCII; in CSV they are one line,
titles are shortened, and a cell that a spreadsheet would take for a formula gets a leading apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from subspace.plots.drawn_panels import Drawn, masked
from subspace.results.csv_text import csv_cell
from subspace.text import shown

__all__ = ["CSV_START", "JSON_START", "as_csv", "as_json"]

JSON_START = b'{"format": "subspace figure data"'
_NUMBERS = ("panel", "title", "i", "j", "phi", "chance", "state", "vmin", "vmax")
_COLUMNS = (*_NUMBERS, "i_module", "j_module", "side", "init")
# What every file of this kind has begun with, so that one of an earlier version may be replaced too
CSV_START = ",".join(_NUMBERS).encode()
_LEFT_OUT = {"lower": "j < i", "upper": "i < j", None: None}


def as_json(panels: Sequence[Drawn]) -> bytes:
    """Return the drawn panels as strict JSON, ASCII: undefined phi is null, `masked` says what is grey."""
    content = {
        "format": "subspace figure data",
        "version": 1,
        "phi": "phi[i - i_start][j - j_start]; null: undefined; random spans have max(i, j) / d on average",
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
        "i_module": panel.i_module,
        "j_module": panel.j_module,
        "side": panel.side,
        "init": panel.init,
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
    panel, title = what.panel, csv_cell(shown(what.panel.title))
    source = [csv_cell(_whole(text)) for text in (panel.i_module, panel.j_module, panel.side, panel.init)]
    grid, grey = panel.grid(), masked(what.panel, what.mask)
    for (row, column), phi in np.ndenumerate(grid):
        i, j = panel.i_start + row, panel.j_start + column
        undefined = bool(np.isnan(phi))
        state = "masked" if grey[row, column] else "undefined" if undefined else "drawn"
        value = "" if undefined else repr(float(phi))
        level = min(max(i, j) / panel.d, 1.0)
        yield number, title, i, j, value, level, state, what.vmin, what.vmax, *source


def _whole(name: str | None) -> str:
    return "" if name is None else shown(name, longest=len(name))
