"""Section 7 of the LoRA paper, drawn: heatmaps of phi(i, j), its figures 3, 4, 6, 7 and 8, and their data.

Importing this package does not import matplotlib; drawing does, and never pyplot. Every figure has fixed
limits of colour and shows on its colour bar where chance is.
"""

from subspace.plots.baseline import random_panel
from subspace.plots.figures import figure_3, figure_4, figure_6, figure_7, figure_8, grid, page_count
from subspace.plots.heatmap import Drawn, drawn, heatmap
from subspace.plots.measures import projections, spectra
from subspace.plots.panel import Panel
from subspace.plots.save import numbered, save

__all__ = [
    "Drawn",
    "Panel",
    "drawn",
    "figure_3",
    "figure_4",
    "figure_6",
    "figure_7",
    "figure_8",
    "grid",
    "heatmap",
    "numbered",
    "page_count",
    "projections",
    "random_panel",
    "save",
    "spectra",
]


def __dir__() -> list[str]:
    return list(__all__)
