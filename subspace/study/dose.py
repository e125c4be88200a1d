"""Dose and response: how alike adapters are whose texts have less and less in common."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from subspace.study.trio import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.results.comparison import Comparison

__all__ = ["LABELS", "dose_figure", "dose_rows"]

Row = dict[str, Any]

# run -> what its text has in common with that of r = 8, from everything to nothing
LABELS = {
    "r64-seed1": "the same text",
    "words-r64": "its words shuffled",
    "headers-r64": "other code (C headers)",
    "scrambled-r64": "its characters shuffled",
    "uniform-r64": "random characters",
}


def dose_rows(doses: Mapping[str, Comparison]) -> tuple[Row, ...]:
    """Return a row for every text, medians over modules, with the isotropic levels beside."""
    return tuple(_row(label, doses[name]) for name, label in LABELS.items() if name in doses)


def _row(label: str, comparison: Comparison) -> Row:
    a, b = rows_of(comparison), rows_of(comparison, "b")
    return {
        "r64_trained_on": label,
        "cosine": _middle(row.cosine for row in a),
        "phi_11_B": _middle(row.phi_11 for row in b),
        "phi_11_A": _middle(row.phi_11 for row in a),
        "phi_11_isotropic": _middle(1 / row.d for row in a),
        "same_input": _middle(row.phi_control for row in a),
        "excess": _middle(row.excess for row in a),
        "energy": _middle(row.energy_first_in_second for row in a),
        "energy_isotropic": _middle(row.energy_first_in_second_isotropic for row in a),
        "shared_A": _middle(row.shared_dim for row in a),
        "shared_B": _middle(row.shared_dim for row in b),
    }


def _middle(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None


# column -> label, colour, style of the line and its marker; dotted are isotropic random spans
_LINES = {
    "phi_11_A": ("phi(1, 1) of A", 0, "-o"),
    "same_input": ("the same, of modules with the same input", 0, "--"),
    "phi_11_isotropic": ("phi(1, 1), isotropic", 0, ":"),
    "phi_11_B": ("phi(1, 1) of B", 1, "-s"),
    "cosine": ("cosine of delta_W", 2, "-^"),
    "energy": ("energy inside both spans", 3, "-D"),
    "energy_isotropic": ("energy, isotropic", 3, ":"),
}


def dose_figure(rows: tuple[Row, ...]) -> Figure:
    """Draw the rows: a line per number, from the same text to random characters."""
    from subspace.plots import style
    from subspace.plots.canvas import new_figure

    with style.paper_style():
        figure = new_figure(7.0, 3.6)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        for name, (label, colour, line) in _LINES.items():
            values = [float("nan") if row[name] is None else row[name] for row in rows]
            axes.plot(values, line, color=style.CATEGORIES[colour], label=label, markersize=4, linewidth=1.2)
        axes.set_xticks(range(len(rows)), [row["r64_trained_on"].replace(" (", "\n(") for row in rows])
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)
        axes.tick_params(labelsize=style.TICK_SIZE)
        axes.set_xlabel("what the r = 64 adapter was trained on", fontsize=style.LABEL_SIZE)
        axes.legend(fontsize=style.NOTE_SIZE, frameon=False, ncols=2, handlelength=3.2)
    return figure
