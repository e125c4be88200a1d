"""Positions of the heatmaps of a page, in inches: nothing overlaps because every text has its own room.

Positions are computed, not solved for, so a page of 48 heatmaps takes no time, and it looks the same whatever the
titles say (they are fitted to their column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.plots import style
from subspace.plots.canvas import fractions, new_figure
from subspace.plots.charts.heatmap import heatmap
from subspace.plots.colorbar import colour_bar
from subspace.plots.control_panels import control_note
from subspace.plots.drawn_panels import Drawn, Mask, drawn
from subspace.plots.isotropic_marks import note as marks_note
from subspace.plots.panel import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Cell", "laid_out"]

# inches: y label and ticks left of a column, title above a row, ticks and x label below it
_LABEL_LEFT, _TICKS_BELOW, _LABEL_BELOW = 0.20, 0.20, 0.18
_EDGE, _NOTE, _BAR_GAP, _BAR_WIDTH, _BAR_TEXT, _BAR_LONGEST = 0.10, 0.22, 0.18, 0.13, 1.8, 3.4
_TITLE_EDGE, _TITLE_LINE, _TICK_EDGE, _DIGIT = 0.10, 0.135, 0.17, 0.065
_NOTE_LINE, _NOTE_LINES = 0.13, 6
_UNDEFINED = "hatched: undefined, beyond the numerical rank"


@dataclass(frozen=True)
class Cell:
    """One place on a page: a panel and the triangle it leaves out; without a panel the place stays empty."""

    panel: Panel | None
    mask: Mask | None = None


def laid_out(
    rows: Sequence[Sequence[Cell]],
    widths: Sequence[float],
    *,
    height: float,
    limits: tuple[float, float],
    relative: bool = False,
    note: str = "",
) -> Figure:
    """Return a figure of `rows` of heatmaps with one scale of colours and one colour bar.

    Parameters
    ----------
    rows : sequence of rows of Cell
        Each row at most as long as `widths`.
    widths : sequence of float
        Inches of each column.
    height : float
        Inches of every row.
    limits : (vmin, vmax)
        Limits of the colours.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans.
    note : str
        Text under the figure, saying what is not on it. What the marks mean and the axis labels that had to be cut are
        added to it.
    """
    shared = _shared_labels(rows)
    lefts, total = _lefts(rows, widths, shared)
    wide = total + _BAR_GAP + _BAR_WIDTH + _BAR_TEXT
    shown = [Drawn(cell.panel, *limits, cell.mask, relative) for row in rows for cell in row if cell.panel]
    note = _whole_note(
        [note, marks_note(shown), control_note(_controls(shown))], rows, widths, height, wide - 2 * _EDGE
    )
    tops, end = _tops(rows, widths, height + _TICKS_BELOW + (0.0 if shared else _LABEL_BELOW), relative)
    tall = end + (_LABEL_BELOW if shared else 0.0) + _note_room(note)
    with style.paper_style():
        figure = new_figure(wide, tall)
        for row, top in zip(rows, tops, strict=True):
            bottom = tall - top - height
            places = [(left, bottom, width, height) for left, width in zip(lefts, widths, strict=True)]
            _draw_row(figure, row, places, limits, relative)
        if shared:
            _drop_inner_labels(figure, rows)
        _add_bar(figure, (total + _BAR_GAP, tall - tops[0]), tops[-1] - tops[0] + height)
        if note:
            _add_note(figure, note)
    return figure


def _shared_labels(rows: Sequence[Sequence[Cell]]) -> bool:
    """Whether all panels have the same axis labels, so that only the outer ones need be written."""
    return len({(panel.i_label, panel.j_label) for panel in _panels(rows)}) == 1


def _panels(rows: Sequence[Sequence[Cell]]) -> list[Panel]:
    return [cell.panel for row in rows for cell in row if cell.panel is not None]


def _controls(shown: Sequence[Drawn]) -> list[str]:
    return [what.panel.control["kind"] for what in shown if what.panel.control is not None]


def _whole_note(
    notes: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    widths: Sequence[float],
    height: float,
    inches: float,
) -> str:
    undefined = any(bool(np.isnan(panel.grid()).any()) for panel in _panels(rows))
    parts = [*notes, _UNDEFINED if undefined else "", *_cut_labels(rows, widths, height)[:4]]
    whole = "; ".join(part for part in parts if part)
    return style.fitted(whole, inches=inches, size=style.NOTE_SIZE, lines=_NOTE_LINES)


def _cut_labels(rows: Sequence[Sequence[Cell]], widths: Sequence[float], height: float) -> list[str]:
    """Return the labels of axes that are too long for a place they stand in."""
    found: dict[str, None] = {}
    for row in rows:
        for cell, width in zip(row, widths, strict=False):
            if cell.panel is not None:
                room = {cell.panel.i_label: height + style.PAST_HEIGHT}
                room[cell.panel.j_label] = width + style.PAST_WIDTH
                whole = {label: style.text(label) for label in room}
                found |= {whole[k]: None for k in room if style.axis_label(k, inches=room[k]) != whole[k]}
    return list(found)


def _note_room(note: str) -> float:
    return _NOTE + _NOTE_LINE * note.count("\n") if note else 0.0


def _tops(
    rows: Sequence[Sequence[Cell]], widths: Sequence[float], below: float, relative: bool
) -> tuple[list[float], float]:
    """Return the inches from the top of the page to the axes of each row, and to the end of the last.

    Axes and what stands under them take `below` inches; the line about isotropic random spans is over them.
    """
    tops, y = [], _EDGE
    for row in rows:
        y += _title_room(row, widths) + (0.0 if relative else style.LEVEL_LINE)
        tops.append(y)
        y += below
    return tops, y


def _title_room(row: Sequence[Cell], widths: Sequence[float]) -> float:
    """Return the inches above a row, for as many lines as its longest title needs."""
    titles = [
        style.title(cell.panel.title, inches=width)
        for cell, width in zip(row, widths, strict=False)
        if cell.panel is not None
    ]
    return _TITLE_EDGE + _TITLE_LINE * (1 + max(title.count("\n") for title in titles))


def _lefts(
    rows: Sequence[Sequence[Cell]], widths: Sequence[float], shared: bool
) -> tuple[list[float], float]:
    """Return the left edge of each column's axes and the right edge of the last, in inches."""
    ticks = _TICK_EDGE + _DIGIT * max(len(str(panel.last_i)) for panel in _panels(rows))
    lefts, x = [], _EDGE
    for k, width in enumerate(widths):
        x += ticks + (_LABEL_LEFT if k == 0 or not shared else 0.0)
        lefts.append(x)
        x += width
    return lefts, x


def _draw_row(
    figure: Figure,
    row: Sequence[Cell],
    places: Sequence[tuple[float, float, float, float]],
    limits: tuple[float, float],
    relative: bool,
) -> None:
    for cell, place in zip(row, places, strict=False):
        if cell.panel is not None:
            ax = figure.add_axes(fractions(figure, *place))
            low, high = limits
            heatmap(cell.panel, ax=ax, vmin=low, vmax=high, mask=cell.mask, colorbar=False, relative=relative)


def _drop_inner_labels(figure: Figure, rows: Sequence[Sequence[Cell]]) -> None:
    """Keep the y label of the first column, and the x label of the last panel of each column."""
    places = [(k, c) for k, row in enumerate(rows) for c, cell in enumerate(row) if cell.panel is not None]
    lowest = {c: k for k, c in places}
    for ax, (k, c) in zip(figure.axes, places, strict=True):
        if c > 0:
            ax.set_ylabel("")
        if k != lowest[c]:
            ax.set_xlabel("")


def _add_bar(figure: Figure, top_left: tuple[float, float], height: float) -> None:
    image = figure.axes[0].images[0]
    long = min(height, _BAR_LONGEST)
    left, top = top_left
    cax = figure.add_axes(fractions(figure, left, top - long, _BAR_WIDTH, long))
    colour_bar(image, drawn(figure), cax=cax)


def _add_note(figure: Figure, note: str) -> None:
    width, height = figure.get_size_inches()
    x, y = _EDGE / width, 0.08 / height
    figure.text(x, y, note, fontsize=style.NOTE_SIZE, family=style.FONT, parse_math=False, va="bottom")
