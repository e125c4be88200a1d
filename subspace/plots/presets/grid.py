"""One heatmap per module, for all modules of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.plots import colour_scale, style
from subspace.plots.page_layout import Cell, laid_out
from subspace.plots.preset import Preset
from subspace.plots.presets._pages import in_rows, on_page, page_count, some
from subspace.plots.presets._selection import selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "grid"]


def grid(panels: Sequence[Panel], *, page: int = 1, relative: bool = False) -> Figure:
    """Return one heatmap per module, any number of them, colours 0 to 1.

    Parameters
    ----------
    panels : sequence of Panel
        One per module, in the order to draw.
    page : int
        From 1; a page holds 48 modules (`page_count`). A note says which ones are on it.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans.
    """
    chosen, note = on_page(some(panels), page, style.GRID_PER_PAGE, "modules")
    columns = _columns(len(chosen))
    rows = in_rows([Cell(panel) for panel in chosen], columns)
    width = style.SQUARE[0] if all(_is_square(panel) for panel in chosen) else style.GRID_WIDTH
    limits = colour_scale.limits(None, None, relative=relative)
    return laid_out(
        rows, [width] * columns, height=style.SQUARE[1], limits=limits, relative=relative, note=note
    )


def _is_square(panel: Panel) -> bool:
    rows, columns = panel.last_i - panel.i_start + 1, panel.last_j - panel.j_start + 1
    return columns < 2 * rows


def _columns(n: int) -> int:
    """Return a number of columns that leaves few empty places and a page that is wider than tall."""
    return next((c for c in (1, 2, 3, 4, 5) if n <= c * max(1, c - 1)), style.GRID_COLUMNS)


def _draw(comparison: Comparison, *, side: str, layer: int | None, relative: bool) -> list[Figure]:
    chosen = selected(comparison, side)
    panels = (chosen if layer is None else chosen.at(layer)).panels_by_path()
    return [grid(panels, page=n + 1, relative=relative) for n in range(page_count(len(panels)))]


PRESET = Preset("grid", "One heatmap per module, for all modules or one layer.", _draw)
