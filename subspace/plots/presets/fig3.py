"""Figure 3 of the paper: one layer's q and v, wide and then zoomed in.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.plots.preset import Preset
from subspace.plots.presets._controls import rows_with_controls
from subspace.plots.presets._pages import some
from subspace.plots.presets._selection import selected
from subspace.plots.presets._wide_and_zoomed import wide_and_zoomed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "figure_3"]


def figure_3(
    panels: Sequence[Panel], *, controls: Sequence[Panel | None] = (), relative: bool = False
) -> Figure:
    """Return figure 3: each panel wide (cells j < i left out), then zoomed in on what was left out; 0 to 1.

    Parameters
    ----------
    panels : sequence of Panel
        The paper's two are delta_W_q and delta_W_v of A_{r=8} against A_{r=64}; one or more will do. The
        lower rank is put on the i axis, as in the paper (phi is symmetric under the exchange).
    controls : sequence of Panel or None
        Per panel that of its control, drawn under it.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans.
    """
    return wide_and_zoomed(rows_with_controls([some(panels)], [controls]), relative=relative)


def _draw(comparison: Comparison, *, side: str, layer: int | None, relative: bool) -> list[Figure]:
    chosen = selected(comparison, side).q_and_v().at(layer)
    return [figure_3(chosen.panels(), controls=chosen.controls(), relative=relative)]


PRESET = Preset("fig3", "One layer's q and v at two ranks, wide and zoomed in.", _draw)
