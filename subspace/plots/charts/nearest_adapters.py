"""The nearest neighbours of every adapter of a library as a table: a name in each cell, its likeness as a colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import InconclusiveError, ShapeError
from subspace.plots import style
from subspace.plots.adapter_titles import adapter_titles, text_width
from subspace.plots.canvas import fractions, new_figure, shows_its_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["nearest_adapters"]

_MOST = 40  # rows of a page
_ROW, _EDGE, _HEAD, _BAR_HEIGHT = 0.2, 0.12, 0.36, 0.12
_PALE = 0.62  # likeness from which a colour is too light for white letters


def nearest_adapters(
    S: Any,
    names: Sequence[str],
    *,
    neighbours: int = 3,
    measure: str = "cosine of delta_W",
    rows: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the nearest neighbours of adapters, the nearest first, and return the axes.

    Parameters
    ----------
    S : array_like, shape (N, N)
        Symmetric, 1 for equal adapters; NaN where two cannot be compared. The diagonal is not read.
    names : sequence of str
        Paths of the adapters.
    neighbours : int
        How many of each, at least 1.
    measure : str
        What `S` is called.
    rows : sequence of int, optional
        Adapters that have a row, in this order. None: all, or the 40 that have the nearest neighbours.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    ShapeError
        If `S` does not fit the names.
    InconclusiveError
        If there is no pair.
    """
    order, values = _nearest(S, len(names), neighbours)
    shown = _rows(values) if rows is None else list(rows)
    short = adapter_titles(names, longest=26)
    column = max(1.1, text_width(short, size=style.TICK_SIZE) + 0.55)
    left = text_width([short[n] for n in shown], size=style.TICK_SIZE) + 0.1
    with style.paper_style():
        if ax is None:
            place = 2 * _EDGE + left, 0.62, column * values.shape[1], _ROW * len(shown)
            figure = new_figure(
                place[0] + place[2] + _EDGE, place[1] + place[3] + _HEAD + 0.2 * (len(shown) < len(names))
            )
            ax = shows_its_figure(figure.add_axes(fractions(figure, *place)), figure)
            scale = figure.add_axes(fractions(figure, place[0], 0.36, min(2.2, place[2]), _BAR_HEIGHT))
            _scale(scale, measure)
        _table(ax, order[shown], values[shown], short)
        _name(ax, [short[n] for n in shown], len(names))
    return ax


def _nearest(S: Any, N: int, neighbours: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Numbers and likeness of the nearest of each adapter, (N, neighbours); NaN where there is none."""
    S = np.array(S, dtype=float)
    if S.shape != (N, N):
        raise ShapeError(
            f"Similarities that do not fit {N} adapters: shape {S.shape}; give one row and column for each"
        )
    np.fill_diagonal(S, np.nan)
    if not N or np.isnan(S).all():
        raise InconclusiveError("There is no neighbour to draw: no two adapters have a module in common")
    order = np.argsort(np.where(np.isnan(S), np.inf, -S), axis=1, kind="stable")[:, : min(neighbours, N - 1)]
    return order, np.take_along_axis(S, order, axis=1)


def _rows(values: NDArray[np.float64]) -> list[int]:
    """All rows, or those with the nearest neighbours, in the order of the library."""
    nearest = np.argsort(-np.nan_to_num(values[:, 0], nan=-np.inf), kind="stable")[:_MOST]
    return sorted(int(n) for n in nearest)


def _table(axes: Axes, order: NDArray[np.intp], values: NDArray[np.float64], short: Sequence[str]) -> None:
    axes.set_facecolor(style.UNDEFINED)
    axes.imshow(
        np.clip(values, 0.0, 1.0),
        cmap=style.colours(),
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
    )
    for (row, column), value in np.ndenumerate(values):
        colour = style.ON_LIGHT if np.isnan(value) or value > _PALE else style.ON_DARK
        name = "none" if np.isnan(value) else short[int(order[row, column])]
        font: dict[str, Any] = {
            "fontsize": style.TICK_SIZE,
            "va": "center",
            "color": colour,
            "family": style.FONT,
        }
        axes.text(column - 0.47, row, name, ha="left", parse_math=False, **font)
        if not np.isnan(value):
            axes.text(column + 0.47, row, f"{value:.2f}".replace("-0.00", "0.00"), ha="right", **font)
    for x in range(1, values.shape[1]):
        axes.axvline(x - 0.5, color="white", linewidth=1.5)
    for y in range(1, len(values)):
        axes.axhline(y - 0.5, color="white", linewidth=0.6)


def _name(axes: Axes, names: Sequence[str], total: int) -> None:
    columns = axes.images[0].get_array()
    count = 0 if columns is None else columns.shape[1]
    heads = ["nearest", "second", "third", *(f"{n}th" for n in range(4, count + 1))][:count]
    axes.xaxis.tick_top()
    axes.set_xticks(range(count), heads, fontsize=style.TICK_SIZE)
    axes.set_yticks(range(len(names)), names, fontsize=style.TICK_SIZE, parse_math=False, family=style.FONT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(names) < total:
        axes.set_title(
            f"the {len(names)} of {total} adapters with the nearest neighbours",
            fontsize=style.NOTE_SIZE,
            loc="left",
        )


def _scale(axes: Axes, measure: str) -> None:
    """The colours as a strip below the table."""
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=style.colours(), aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 0.5, 1], ["0 or less", "0.5", "1"], fontsize=style.TICK_SIZE)
    axes.set_xlabel(style.text(measure, longest=60), fontsize=style.LABEL_SIZE, parse_math=False, labelpad=1)
