"""Figure 8 of the paper: the top directions of W against those of an adapter.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, figure 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.plots import style
from subspace.plots.page_layout import Cell, laid_out
from subspace.plots.preset import Preset
from subspace.plots.presets._base_first import colour_limits, with_base_first, without_top
from subspace.plots.presets._pages import in_rows, some
from subspace.plots.random_spans import random_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "figure_8"]


def figure_8(panels: Sequence[Panel], *, relative: bool = False) -> Figure:
    """Return figure 8: W's directions (i) against those of several adapters (j), one panel each.

    Parameters
    ----------
    panels : sequence of Panel
        The paper's are W_q against A_{r=4}, A_{r=8}, A_{r=64} and a random matrix.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans, from a quarter to four times.

    Notes
    -----
    Colours run from the level of isotropic random spans at the largest i (of all panels) to twice that. In the paper
    i ends at 10 % of d, hence its 0.1 to 0.2: an adapter that has no more to do with W than isotropic random spans
    have is uniformly dark. Where that level is above 1/2 the upper end is 1, and the lower half of it.
    A panel that reaches past twice 451 starts at i = 451, as in the paper.
    """
    cut = [without_top(panel) for panel in some(panels)]
    rows = in_rows([Cell(panel) for panel in cut], 4)
    limits = colour_limits(cut, relative=relative)
    widths = [style.LAYER_SIDE] * len(rows[0])
    return laid_out(rows, widths, height=style.TALL, limits=limits, relative=relative)


def _draw(comparison: Comparison, *, side: str, layer: int | None, relative: bool) -> list[Figure]:
    chosen = with_base_first(comparison, side).q_and_v().at(layer)
    drawn = []
    for row, panel in zip(chosen.rows, chosen.panels(), strict=True):
        n_i, n_j = row.phi.shape
        drawn += [panel, random_panel(n_i, n_j, row.d)]
    return [figure_8(drawn, relative=relative)]


PRESET = Preset("fig8", "The top directions of base weights against an adapter's.", _draw)
