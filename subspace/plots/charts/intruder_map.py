"""Which leading directions of the merged weights are intruders, and at which scale the first one appears."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError
from subspace.plots import style
from subspace.plots.canvas import new_figure, shows_its_figure
from subspace.plots.charts._axes import label_axes
from subspace.plots.module_titles import endings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from subspace.results.intrusion import Intruders, ModuleIntruders

__all__ = ["intruder_map"]

_NAMED = 96  # so many rows have room for their names
_TALLEST = 11.0  # inches
_PALE = 0.7  # |cos| from which a colour is too light for a white mark
_MEASURED, _LAW = "#c63f59", "#3b1f4e"


def intruder_map(result: Intruders, *, ax: Axes | None = None) -> Axes:
    """Draw the largest |cos| of every leading direction with a singular vector of W, intruders crossed.

    On a figure of its own, a second panel has the multiple of the scale at which each module's first intruder appears,
    measured and by the law; an arrow is where none appeared up to the largest that was tried.

    Parameters
    ----------
    result : Intruders
        One line for each module and side; those without numbers are left out.
    ax : matplotlib Axes, optional
        Where to draw the map alone. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    InconclusiveError
        If no module has a number.
    """
    rows = [row for row in result.modules if row.max_cos]
    if not rows:
        raise InconclusiveError("There are no directions to draw: no module has a count of intruders")
    if ax is not None:
        _map(ax, rows, result)
        return ax
    scaled = bool(result.up_to) and any(row.s_star is not None or row.s_star_law is not None for row in rows)
    width = 2.6 + 0.16 * result.k + 0.055 * max(map(len, _names(rows))) + (1.9 if scaled else 0.0)
    figure = new_figure(width, min(_TALLEST, 1.5 + 0.15 * len(rows)))
    figure.set_layout_engine("constrained")
    both = figure.subplots(
        1, 2 if scaled else 1, squeeze=False, width_ratios=[0.16 * result.k + 1, 1.6][: 1 + scaled]
    )[0]
    _map(both[0], rows, result)
    if scaled:
        _scales(both[1], rows, result)
    return shows_its_figure(both[0], figure)


def _map(axes: Axes, rows: Sequence[ModuleIntruders], result: Intruders) -> None:
    k = max(len(row.max_cos) for row in rows)
    values = np.full((len(rows), k), np.nan)
    for n, row in enumerate(rows):
        values[n, : len(row.max_cos)] = row.max_cos
    image = axes.imshow(values, cmap=style.colours(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_facecolor(style.UNDEFINED)
    y, x = np.nonzero(values < result.epsilon)
    for pale, colour in ((False, style.ON_DARK), (True, style.ON_LIGHT)):
        marked = (values[y, x] > _PALE) == pale
        axes.plot(x[marked], y[marked], "x", color=colour, markersize=4, markeredgewidth=1.0)
    axes.set_xticks(np.arange(k)[:: max(1, k // 10)], np.arange(1, k + 1)[:: max(1, k // 10)])
    label_axes(axes, "singular direction of W + delta_W", "")
    _name(axes, rows)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.06, pad=0.02)
    bar.ax.set_title("largest\n|cos|", fontsize=style.NOTE_SIZE, loc="left")
    bar.ax.tick_params(labelsize=style.TICK_SIZE)
    _mark(bar.ax, result.epsilon, "ε")
    axes.set_title(f"× intruder: |cos| < {result.epsilon:g}", fontsize=style.NOTE_SIZE, loc="left")


def _mark(axes: Axes, level: float, name: str) -> None:
    axes.axhline(level, color="white", linewidth=1.2)
    axes.text(0.5, level, name, color="white", ha="center", va="bottom", fontsize=style.NOTE_SIZE)


def _name(axes: Axes, rows: Sequence[ModuleIntruders]) -> None:
    """Names of the lines while there is room, otherwise their numbers, and what these are."""
    if len(rows) <= min(_NAMED, int((_TALLEST - 1.5) / 0.1)):
        axes.set_yticks(range(len(rows)), _names(rows), parse_math=False, fontsize=style.TICK_SIZE)
    else:
        axes.set_ylabel(f"rows 0 to {len(rows) - 1}, in the order of the table", fontsize=style.LABEL_SIZE)


def _names(rows: Sequence[ModuleIntruders]) -> list[str]:
    modules = list(dict.fromkeys(row.module for row in rows))
    names = dict(zip(modules, endings(modules), strict=True))
    sides = len({row.side for row in rows}) > 1
    return [f"{names[row.module]} {row.side}" if sides else names[row.module] for row in rows]


def _scales(axes: Axes, rows: Sequence[ModuleIntruders], result: Intruders) -> None:
    y = np.arange(len(rows))
    measured = np.array([np.nan if row.s_star is None else row.s_star for row in rows])
    law = np.array([np.nan if row.s_star_law is None else row.s_star_law for row in rows])
    none = np.isnan(measured)
    axes.axvline(1.0, color=style.OTHERS, linewidth=0.8)
    axes.plot(law, y, "D", markersize=3.5, markerfacecolor="none", color=_LAW, label="by the law")
    axes.plot(measured, y, "o", markersize=4, color=_MEASURED, label="measured")
    axes.plot(
        np.full(none.sum(), result.up_to), y[none], ">", markersize=4, color=_MEASURED, markerfacecolor="none",
        label=f"none up to {result.up_to:g}" if none.any() else None,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    label_axes(axes, "first intruder at this multiple\nof the adapter's scale", "")
    axes.legend(
        fontsize=style.NOTE_SIZE, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderpad=0.2,
        handletextpad=0.3,
    )  # fmt: skip
