"""Figure 8 of the paper for every layer: the top directions of W against those of an adapter, a row per layer.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, figure 8, which shows one layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.plots import style
from subspace.plots.page_layout import Cell, laid_out
from subspace.plots.preset import Preset
from subspace.plots.presets._base_first import colour_limits, with_base_first, without_top
from subspace.plots.presets._pages import on_page, page_count, some
from subspace.plots.random_spans import random_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "figure_8_layers"]


def figure_8_layers(layers: Sequence[Sequence[Panel]], *, page: int = 1, relative: bool = False) -> Figure:
    """Return figure 8 for several layers: a row per layer, the panels of all in one scale of colours.

    Parameters
    ----------
    layers : sequence of sequence of Panel
        Per layer the panels that `figure_8` takes.
    page : int
        From 1; a page holds 12 layers (`page_count`). A note says which ones are on it.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans, from a quarter to four times.
    """
    cut = [[without_top(panel) for panel in some(layer)] for layer in some(layers)]
    # of all pages, so that they can be compared
    limits = colour_limits([panel for layer in cut for panel in layer], relative=relative)
    chosen, note = on_page(cut, page, style.LAYER_ROWS_PER_PAGE, "layers")
    rows = [[Cell(panel) for panel in layer] for layer in chosen]
    widths = [style.LAYER_SIDE] * max(map(len, rows))
    return laid_out(rows, widths, height=style.LAYER_SIDE, limits=limits, relative=relative, note=note)


def _draw(comparison: Comparison, *, side: str, layer: int | None, relative: bool) -> list[Figure]:
    chosen = with_base_first(comparison, side).q_and_v()
    layers = []
    for one in chosen.each_layer() if layer is None else [chosen.at(layer)]:
        n_i, n_j = one.rows[0].phi.shape
        # one random matrix per layer is enough to compare its panels with
        layers.append([*one.panels(), random_panel(n_i, n_j, one.rows[0].d)])
    pages = page_count(len(layers), per_page=style.LAYER_ROWS_PER_PAGE)
    return [figure_8_layers(layers, page=n + 1, relative=relative) for n in range(pages)]


PRESET = Preset("fig8all", "Figure 8 for every layer, a row each.", _draw)
