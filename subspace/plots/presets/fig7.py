"""Figure 7 of the paper: figure 4 for several layers.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, figure 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from subspace.plots import style
from subspace.plots.page_layout import Cell, laid_out
from subspace.plots.preset import Preset
from subspace.plots.presets._pages import in_rows, on_page, some
from subspace.plots.presets._selection import selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "figure_7"]


def figure_7(layers: Sequence[Sequence[Panel]], *, page: int = 1) -> Figure:
    """Return figure 7: a column per layer, a row per kind of module, colours 0 to 0.8.

    Parameters
    ----------
    layers : sequence of sequence of Panel
        Per layer the panels of its modules, as for `figure_6`; figure 4's panels for every layer.
    page : int
        From 1; a page holds 24 layers (`page_count`) in blocks of 4 columns.
    """
    chosen, note = on_page(some(layers), page, style.LAYERS_PER_PAGE, "layers")
    rows: list[list[Cell]] = []
    for block in in_rows([some(layer) for layer in chosen], style.LAYER_COLUMNS):
        rows += [[Cell(panel) for panel in kind] for kind in zip_longest(*block)]
    side = style.LAYER_SIDE
    return laid_out(rows, [side] * max(map(len, rows)), height=side, limits=(0.0, 0.8), note=note)


def _draw(comparison: Comparison, *, side: str, layer: int | None) -> list[Figure]:
    chosen = selected(comparison, side).q_and_v().over_layers(layer)
    return [figure_7([one.panels() for one in chosen])]


PRESET = Preset("fig7", "Figure 4 for four layers, from the first to the last.", _draw)
