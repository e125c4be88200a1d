"""Figure 6 of the paper: figure 3 for several layers.

References
----------
Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2, figure 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.plots import style
from subspace.plots.preset import Preset
from subspace.plots.presets._controls import any_control, of_each_layer, rows_with_controls
from subspace.plots.presets._pages import on_page, some
from subspace.plots.presets._selection import selected
from subspace.plots.presets._wide_and_zoomed import wide_and_zoomed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["PRESET", "figure_6"]


def figure_6(
    layers: Sequence[Sequence[Panel]],
    *,
    controls: Sequence[Sequence[Panel | None]] = (),
    page: int = 1,
    relative: bool = False,
) -> Figure:
    """Return figure 6: a row per layer, each panel wide and then zoomed in, colours 0 to 1.

    Parameters
    ----------
    layers : sequence of sequence of Panel
        Per layer the panels of its modules, the paper's two being q and v.
    controls : sequence of sequence of Panel or None
        Per layer the panels of its modules' controls, drawn under them.
    page : int
        From 1; a page holds 12 layers (`page_count`), or 6 with controls.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans.
    """
    pairs = of_each_layer(some(layers), controls)
    per_page = style.LAYER_ROWS_PER_PAGE // (2 if any_control(controls) else 1)
    chosen, note = on_page(pairs, page, per_page, "layers")
    rows = rows_with_controls(*zip(*chosen, strict=True))
    return wide_and_zoomed(rows, relative=relative, note=note)


def _draw(comparison: Comparison, *, side: str, layer: int | None, relative: bool) -> list[Figure]:
    chosen = selected(comparison, side).q_and_v().over_layers(layer)
    controls = [one.controls() for one in chosen]
    return [figure_6([one.panels() for one in chosen], controls=controls, relative=relative)]


PRESET = Preset("fig6", "Figure 3 for four layers, from the first to the last.", _draw)
