"""Figure 4 of the paper: one layer's q and v in two runs of one rank, next to random Gaussian matrices.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, figure 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.plots import style
from subspace.plots.page_layout import Cell, laid_out
from subspace.plots.preset import Preset
from subspace.plots.presets._pages import in_rows, some
from subspace.plots.presets._selection import selected
from subspace.plots.random_spans import random_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "figure_4"]


def figure_4(panels: Sequence[Panel]) -> Figure:
    """Return figure 4: two runs of one rank against each other, one row, 0 to 0.5.

    Parameters
    ----------
    panels : sequence of Panel
        The paper's are delta_W_q, delta_W_v and two random Gaussian matrices (`random_panel`).
    """
    rows = in_rows([Cell(panel) for panel in some(panels)], 4)
    side = style.SINGLE_SIDE
    return laid_out(rows, [side] * len(rows[0]), height=side, limits=(0.0, 0.5))


def _draw(comparison: Comparison, *, side: str, layer: int | None) -> list[Figure]:
    chosen = selected(comparison, side).q_and_v().at(layer)
    r_first, r_second = chosen.rows[0].phi.shape
    return [figure_4([*chosen.panels(), random_panel(r_first, r_second, chosen.rows[0].d)])]


PRESET = Preset("fig4", "One layer's q and v in two runs, next to random Gaussian matrices.", _draw)
