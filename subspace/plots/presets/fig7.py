"""Figure 7 of the paper: figure 4 for several layers.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, figure 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from subspace.plots import colour_scale, style
from subspace.plots.page_layout import Cell, laid_out
from subspace.plots.preset import Preset
from subspace.plots.presets._controls import any_control, each_with_control, of_each_layer
from subspace.plots.presets._pages import in_rows, on_page, some
from subspace.plots.presets._selection import selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "figure_7"]


def figure_7(
    layers: Sequence[Sequence[Panel]],
    *,
    controls: Sequence[Sequence[Panel | None]] = (),
    page: int = 1,
    relative: bool = False,
) -> Figure:
    """Return figure 7: a column per layer, a row per kind of module, colours 0 to 0.8.

    Parameters
    ----------
    layers : sequence of sequence of Panel
        Per layer the panels of its modules, as for `figure_6`; figure 4's panels for every layer.
    controls : sequence of sequence of Panel or None
        Per layer the panels of its modules' controls, drawn under them.
    page : int
        From 1; a page holds 24 layers (`page_count`) in blocks of 4 columns, or 12 with controls.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans.
    """
    pairs = of_each_layer([some(layer) for layer in some(layers)], controls)
    per_page = style.LAYERS_PER_PAGE // (2 if any_control(controls) else 1)
    chosen, note = on_page(pairs, page, per_page, "layers")
    columns = [each_with_control(*pair) for pair in chosen]
    blocks = in_rows(columns, style.LAYER_COLUMNS)
    rows = [row for block in blocks for row in zip_longest(*block) if any_control([row])]
    cells = [[Cell(panel) for panel in row] for row in rows]
    side, limits = style.LAYER_SIDE, colour_scale.RATIO if relative else (0.0, 0.8)
    widths = [side] * max(map(len, cells))
    return laid_out(cells, widths, height=side, limits=limits, relative=relative, note=note)


def _draw(comparison: Comparison, *, side: str, layer: int | None, relative: bool) -> list[Figure]:
    chosen = selected(comparison, side).q_and_v().over_layers(layer)
    controls = [one.controls() for one in chosen]
    return [figure_7([one.panels() for one in chosen], controls=controls, relative=relative)]


PRESET = Preset("fig7", "Figure 4 for four layers, from the first to the last.", _draw)
