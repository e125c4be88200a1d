"""Figures of results: heatmaps of phi(i, j), the figures of section 7 of the LoRA paper, spectra, and their data.

A chart draws one thing; it is a file in `subspace.plots.charts` with a function of the same name. A figure preset
lays a whole comparison out as figures; it is a file in `subspace.plots.presets`. Both are found by being there.

Names are loaded on first use: importing this package does not import matplotlib. Drawing does, but never pyplot.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from subspace.plots import charts

if TYPE_CHECKING:
    from subspace.plots.charts.alignment_curves import alignment_curves as alignment_curves
    from subspace.plots.charts.births import births as births
    from subspace.plots.charts.explained_shares import explained_shares as explained_shares
    from subspace.plots.charts.heatmap import heatmap as heatmap
    from subspace.plots.charts.intruder_map import intruder_map as intruder_map
    from subspace.plots.charts.projections import projections as projections
    from subspace.plots.charts.rank_ladder import rank_ladder as rank_ladder
    from subspace.plots.charts.rank_map import rank_map as rank_map
    from subspace.plots.charts.recovered_ranks import recovered_ranks as recovered_ranks
    from subspace.plots.charts.spectra import spectra as spectra
    from subspace.plots.charts.trajectory import trajectory as trajectory
    from subspace.plots.charts.trajectory_map import trajectory_map as trajectory_map
    from subspace.plots.drawn_panels import Drawn as Drawn
    from subspace.plots.drawn_panels import drawn as drawn
    from subspace.plots.figure_files import numbered as numbered
    from subspace.plots.figure_files import save as save
    from subspace.plots.panel import Panel as Panel
    from subspace.plots.presets import figures as figures
    from subspace.plots.presets._pages import page_count as page_count
    from subspace.plots.presets.fig3 import figure_3 as figure_3
    from subspace.plots.presets.fig4 import figure_4 as figure_4
    from subspace.plots.presets.fig6 import figure_6 as figure_6
    from subspace.plots.presets.fig7 import figure_7 as figure_7
    from subspace.plots.presets.fig8 import figure_8 as figure_8
    from subspace.plots.presets.fig8all import figure_8_layers as figure_8_layers
    from subspace.plots.presets.grid import grid as grid
    from subspace.plots.random_spans import random_panel as random_panel

_WHERE = {
    "Drawn": "drawn_panels",
    "Panel": "panel",
    "drawn": "drawn_panels",
    "figure_3": "presets.fig3",
    "figure_4": "presets.fig4",
    "figure_6": "presets.fig6",
    "figure_7": "presets.fig7",
    "figure_8": "presets.fig8",
    "figure_8_layers": "presets.fig8all",
    "figures": "presets",
    "grid": "presets.grid",
    "numbered": "figure_files",
    "page_count": "presets._pages",
    "random_panel": "random_spans",
    "save": "figure_files",
    **{name: f"charts.{name}" for name in charts.names()},
}

__all__ = sorted(_WHERE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'subspace.plots' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
