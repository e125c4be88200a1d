"""Figure 4 of the paper: one layer's q and v in two runs of one rank, next to random Gaussian matrices.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, figure 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.plots import colour_scale, style
from subspace.plots.page_layout import Cell, laid_out
from subspace.plots.preset import Preset
from subspace.plots.presets._controls import rows_with_controls
from subspace.plots.presets._pages import in_rows, some
from subspace.plots.presets._selection import selected
from subspace.plots.random_spans import random_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "figure_4"]


def figure_4(
    panels: Sequence[Panel], *, controls: Sequence[Panel | None] = (), relative: bool = False
) -> Figure:
    """Return figure 4: two runs of one rank against each other, one row, 0 to 0.5.

    Parameters
    ----------
    panels : sequence of Panel
        The paper's are delta_W_q, delta_W_v and two random Gaussian matrices (`random_panel`).
    controls : sequence of Panel or None
        Per panel that of its control, drawn under it.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans.
    """
    rows = rows_with_controls(in_rows(some(panels), 4), in_rows(controls, 4))
    cells = [[Cell(panel) for panel in row] for row in rows]
    side, limits = style.SINGLE_SIDE, colour_scale.RATIO if relative else (0.0, 0.5)
    return laid_out(cells, [side] * len(cells[0]), height=side, limits=limits, relative=relative)


def _draw(comparison: Comparison, *, side: str, layer: int | None, relative: bool) -> list[Figure]:
    chosen = selected(comparison, side).q_and_v().at(layer)
    r_first, r_second = chosen.rows[0].phi.shape
    panels = [*chosen.panels(), random_panel(r_first, r_second, chosen.rows[0].d)]
    return [figure_4(panels, controls=chosen.controls(), relative=relative)]


PRESET = Preset("fig4", "One layer's q and v in two runs, next to random Gaussian matrices.", _draw)
