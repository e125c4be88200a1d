"""The numbers of a figure as text: strict JSON, or CSV with a line per cell.

The null is named: `null_mean` is the mean of phi over isotropic random spans, max(i, j) / d.
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

from subspace.plots.drawn_panels import Drawn, isotropic_range, masked
from subspace.plots.panel import Panel
from subspace.results.csv_text import csv_cell
from subspace.text import shown

__all__ = ["CSV_START", "JSON_START", "as_csv", "as_json"]

JSON_START = b'{"format": "subspace figure data"'
_COLUMNS = (
    "panel", "title", "i", "j", "phi", "null", "null_mean", "phi_over_null", "state", "drawn", "vmin", "vmax",
    "control", "control_pairs", "i_module", "j_module", "side", "init",
)  # fmt: skip
# What every file of this kind has begun with, so that one of an earlier version may be replaced too
CSV_START = b"panel,title,i,j,phi,"
_NULL = "isotropic"
_QUANTITY = {False: "phi", True: "phi / null_mean"}
_LEFT_OUT = {"lower": "j < i", "upper": "i < j", None: None}


def as_json(panels: Sequence[Drawn]) -> bytes:
    """Return the drawn panels as strict JSON, ASCII: undefined phi is JSON's null, `masked` says what is grey."""
    content = {
        "format": "subspace figure data",
        "version": 2,
        "phi": "phi[i - i_start][j - j_start], JSON's null where it is undefined",
        "null": _NULL,
        "null_mean": "max(i, j) / d: the mean of phi over isotropic random spans",
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
    smallest, largest = isotropic_range(panel, what.mask)
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
        "null": _NULL,
        "null_mean": {"smallest": smallest, "largest": largest},
        "control": None if panel.control is None else dict(panel.control),
        "drawn": _QUANTITY[what.relative],
        "limits": [what.vmin, what.vmax],
        "masked": _LEFT_OUT[what.mask],
        "phi": [[None if np.isnan(v) else float(v) for v in row] for row in panel.grid()],
    }


def _lines(number: int, what: Drawn) -> Iterator[tuple[object, ...]]:
    panel, title = what.panel, csv_cell(shown(what.panel.title))
    grid, means, grey = panel.grid(), panel.isotropic(), masked(panel, what.mask)
    for (row, column), phi in np.ndenumerate(grid):
        undefined = bool(np.isnan(phi))
        state = "masked" if grey[row, column] else "undefined" if undefined else "drawn"
        mean = float(means[row, column])
        values = ("", _NULL, mean, "") if undefined else (repr(float(phi)), _NULL, mean, float(phi) / mean)
        place = number, title, panel.i_start + row, panel.j_start + column
        yield *place, *values, state, _QUANTITY[what.relative], what.vmin, what.vmax, *_source(panel)


def _source(panel: Panel) -> tuple[object, ...]:
    """Return which control the panel shows, if any, and whose phi it is."""
    control = panel.control or {}
    names = (csv_cell(_whole(text)) for text in (panel.i_module, panel.j_module, panel.side, panel.init))
    return control.get("kind", ""), control.get("pairs", ""), *names


def _whole(name: str | None) -> str:
    return "" if name is None else shown(name, longest=len(name))
