"""The figures of section 7 and appendix H of the LoRA paper, as layouts for panels of any model.

Each takes panels and returns a matplotlib Figure. Colours have fixed limits, one bar per figure. They
work with one kind of module or several, any number of layers, any ranks. What does not fit on a page is on
the next one (`page=2`), and a note under the figure says so.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2: figures 3, 4, 6, 7, 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

from subspace.errors import ValueRangeError
from subspace.plots import style
from subspace.plots.colorbar import chance_span
from subspace.plots.layout import Cell, laid_out
from subspace.plots.panel import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_3", "figure_4", "figure_6", "figure_7", "figure_8", "grid", "page_count"]

T = TypeVar("T")

# Figure 8 starts its i axis here: the top few hundred directions of a large W say little
_FIGURE_8_START = 451


def figure_3(panels: Sequence[Panel]) -> Figure:
    """Return figure 3: each panel wide (cells j < i left out), then zoomed in on what was left out; 0 to 1.

    Parameters
    ----------
    panels : sequence of Panel
        The paper's two are delta_W_q and delta_W_v of A_{r=8} against A_{r=64}; one or more will do. The
        lower rank is put on the i axis, as in the paper (phi is symmetric under the exchange).
    """
    return figure_6([panels])


def figure_4(panels: Sequence[Panel]) -> Figure:
    """Return figure 4: two runs of one rank against each other, one row, 0 to 0.5.

    Parameters
    ----------
    panels : sequence of Panel
        The paper's are delta_W_q, delta_W_v and two random Gaussian matrices (`random_panel`).
    """
    cells = [Cell(panel) for panel in _some(panels)]
    rows = [cells[k : k + 4] for k in range(0, len(cells), 4)]
    side = style.SINGLE_SIDE
    return laid_out(rows, [side] * len(rows[0]), height=side, limits=(0.0, 0.5))


def figure_6(layers: Sequence[Sequence[Panel]], *, page: int = 1) -> Figure:
    """Return figure 6: a row per layer, each panel wide and then zoomed, colours 0 to 1.

    Parameters
    ----------
    layers : sequence of sequence of Panel
        Per layer the panels of its modules, the paper's two being q and v.
    page : int
        From 1; a page holds 12 layers (`page_count`).
    """
    chosen, note = _page(_some(layers), page, style.LAYER_ROWS_PER_PAGE, "layers")
    rows = [_wide_and_zoomed(_some(layer), max(map(len, chosen))) for layer in chosen]
    n = len(rows[0]) // 2
    widths = [style.WIDE[0]] * n + [style.SQUARE[0]] * n
    return laid_out(rows, widths, height=style.WIDE[1], limits=(0.0, 1.0), note=note)


def figure_7(layers: Sequence[Sequence[Panel]], *, page: int = 1) -> Figure:
    """Return figure 7: a column per layer, a row per kind of module, colours 0 to 0.8.

    Parameters
    ----------
    layers : sequence of sequence of Panel
        Per layer the panels of its modules, as for `figure_6`; figure 4's panels for every layer.
    page : int
        From 1; a page holds 24 layers (`page_count`) in blocks of 4 columns.
    """
    chosen, note = _page(_some(layers), page, style.LAYERS_PER_PAGE, "layers")
    rows: list[list[Cell]] = []
    for k in range(0, len(chosen), style.LAYER_COLUMNS):
        block = [_some(layer) for layer in chosen[k : k + style.LAYER_COLUMNS]]
        rows += [[Cell(panel) for panel in kind] for kind in zip_longest(*block)]
    side = style.LAYER_SIDE
    return laid_out(rows, [side] * max(map(len, rows)), height=side, limits=(0.0, 0.8), note=note)


def figure_8(panels: Sequence[Panel]) -> Figure:
    """Return figure 8: W's directions (i) against those of several adapters (j), one panel each.

    Parameters
    ----------
    panels : sequence of Panel
        The paper's are W_q against A_{r=4}, A_{r=8}, A_{r=64} and a random matrix.

    Notes
    -----
    Colours run from the chance level of the largest i (of all panels) to twice that. In the paper i ends
    at 10 % of d, hence its 0.1 to 0.2: an adapter that has no more to do with W than chance is uniformly
    dark. Where chance is above 1/2 the upper end is 1, and the lower half of it.
    A panel that reaches past twice 451 starts at i = 451, as in the paper.
    """
    cut = [_without_top(panel) for panel in _some(panels)]
    cells = [Cell(panel) for panel in cut]
    rows = [cells[k : k + 4] for k in range(0, len(cells), 4)]
    widths = [style.LAYER_SIDE] * len(rows[0])
    return laid_out(rows, widths, height=style.TALL, limits=_above_chance(cut))


def grid(panels: Sequence[Panel], *, page: int = 1) -> Figure:
    """Return one heatmap per module, any number of them, colours 0 to 1.

    Parameters
    ----------
    panels : sequence of Panel
        One per module, in the order to draw.
    page : int
        From 1; a page holds 48 modules (`page_count`). A note says which ones are on it.
    """
    chosen, note = _page(_some(panels), page, style.GRID_PER_PAGE, "modules")
    columns = _columns(len(chosen))
    cells = [Cell(panel) for panel in chosen]
    rows = [cells[k : k + columns] for k in range(0, len(cells), columns)]
    width = style.SQUARE[0] if all(_is_square(panel) for panel in chosen) else style.GRID_WIDTH
    return laid_out(rows, [width] * columns, height=style.SQUARE[1], limits=(0.0, 1.0), note=note)


def page_count(n: int, *, per_page: int = style.GRID_PER_PAGE) -> int:
    """Return how many pages `n` panels of `grid` take (12 layers per page in figure 6, 24 in figure 7).

    Examples
    --------
    >>> page_count(224)
    5
    """
    return max(1, -(-n // per_page))


def _wide_and_zoomed(panels: Sequence[Panel], n: int) -> list[Cell]:
    upright = [panel.transposed() if panel.last_i > panel.last_j else panel for panel in panels]
    wide = [Cell(panel, "lower") for panel in upright]
    zoomed = [Cell(_zoomed(panel), "upper") for panel in upright]
    room = [Cell(None)] * (n - len(panels))
    return [*wide, *room, *zoomed, *room]


def _zoomed(panel: Panel) -> Panel:
    cut = panel.cropped(j=(panel.j_start, panel.j_start + panel.last_i - panel.i_start))
    return replace(cut, title=f"{panel.title} (zoom)")


def _without_top(panel: Panel) -> Panel:
    if panel.i_start < _FIGURE_8_START and panel.last_i > 2 * _FIGURE_8_START:
        return panel.cropped(i=(_FIGURE_8_START, panel.last_i))
    return panel


def _above_chance(panels: Sequence[Panel]) -> tuple[float, float]:
    level = chance_span(panels)[1]
    return (level, 2 * level) if level <= 0.5 else (0.5, 1.0)


def _is_square(panel: Panel) -> bool:
    rows, columns = panel.last_i - panel.i_start + 1, panel.last_j - panel.j_start + 1
    return columns < 2 * rows


def _columns(n: int) -> int:
    """Return a number of columns that leaves few empty places and a page that is wider than tall."""
    return next((c for c in (1, 2, 3, 4, 5) if n <= c * max(1, c - 1)), style.GRID_COLUMNS)


def _some(items: Sequence[T]) -> Sequence[T]:
    if not items:
        raise ValueRangeError(
            "A figure must have a panel: got none; compare two adapters that share a module"
        )
    return items


def _page(items: Sequence[T], page: int, per_page: int, noun: str) -> tuple[Sequence[T], str]:
    """Return the items of one page and the note that says which they are, empty when they are all."""
    pages = page_count(len(items), per_page=per_page)
    if not 1 <= page <= pages:
        raise ValueRangeError(f"page must lie in 1..{pages}: got {page}, for {len(items)} {noun}; choose one")
    start = (page - 1) * per_page
    chosen = items[start : start + per_page]
    shown_range = f"{start + 1}–{start + len(chosen)}"
    note = f"{noun} {shown_range} of {len(items)} (page {page} of {pages})" if pages > 1 else ""
    return chosen, note
