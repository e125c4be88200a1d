"""The layout of figures 3 and 6: every panel wide, and zoomed in on the corner that the wide one leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.plots import colour_scale, style
from subspace.plots.page_layout import Cell, laid_out
from subspace.plots.panel import Panel
from subspace.plots.presets._pages import some

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["wide_and_zoomed"]


def wide_and_zoomed(
    layers: Sequence[Sequence[Panel | None]], *, relative: bool = False, note: str = ""
) -> Figure:
    """Return a figure with a row per layer: each panel with its cells j < i left out, then only those; 0 to 1.

    The place of a panel that is None stays empty.
    """
    longest = max(map(len, some(layers)))
    rows = [_row(some(layer), longest) for layer in layers]
    widths = [style.WIDE[0]] * longest + [style.SQUARE[0]] * longest
    limits = colour_scale.limits(None, None, relative=relative)
    return laid_out(rows, widths, height=style.WIDE[1], limits=limits, relative=relative, note=note)


def _row(panels: Sequence[Panel | None], n: int) -> list[Cell]:
    upright = [panel.transposed() if panel and panel.last_i > panel.last_j else panel for panel in panels]
    wide = [Cell(panel, "lower") for panel in upright]
    zoomed = [Cell(panel and _zoomed(panel), "upper") for panel in upright]
    room = [Cell(None)] * (n - len(panels))
    return [*wide, *room, *zoomed, *room]


def _zoomed(panel: Panel) -> Panel:
    cut = panel.cropped(j=(panel.j_start, panel.j_start + panel.last_i - panel.i_start))
    return replace(cut, title=f"{panel.title} (zoom)")
