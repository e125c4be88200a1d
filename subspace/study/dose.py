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
    """Return a row for every text, medians over modules; each number of chance is beside that which it is for."""
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


_LINES = {
    "phi_11_A": ("phi(1, 1) of A", "-"),
    "same_input": ("the same, of modules with the same input", "--"),
    "phi_11_B": ("phi(1, 1) of B", "-"),
    "cosine": ("cosine of delta_W", "-"),
    "energy": ("energy inside both spans", "-"),
}


def dose_figure(rows: tuple[Row, ...]) -> Figure:
    """Draw the rows: a line per number, from the same text to random characters."""
    from subspace.plots import style
    from subspace.plots.canvas import new_figure

    with style.paper_style():
        figure = new_figure(7.0, 3.4)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        colours = dict(zip(("phi_11_A", "phi_11_B", "cosine", "energy"), style.CATEGORIES, strict=False))
        places = range(len(rows))
        for name, (label, line) in _LINES.items():
            values = [float("nan") if row[name] is None else row[name] for row in rows]
            colour = colours.get(name, colours["phi_11_A"])
            axes.plot(places, values, line, color=colour, label=label, marker="o", markersize=4)
        isotropic = [row["phi_11_isotropic"] for row in rows]
        axes.plot(places, isotropic, ":", color=style.OTHERS, label="phi(1, 1) of isotropic random spans")
        axes.set_xticks(places, [row["r64_trained_on"].replace(" (", "\n(") for row in rows])
        axes.set_ylim(-0.05, 1.0)
        axes.tick_params(labelsize=style.TICK_SIZE)
        axes.set_xlabel("what the r = 64 adapter was trained on", fontsize=style.LABEL_SIZE)
        axes.legend(fontsize=style.NOTE_SIZE, frameon=False, ncols=2)
    return figure
