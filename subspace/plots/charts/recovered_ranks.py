"""Recovered rank of every module of a tuned model, by layer and kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError
from subspace.flags import Flag
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.plots.module_titles import endings, kind_of, layer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from subspace.results.extraction import Extraction

__all__ = ["recovered_ranks"]

_LABELLED = 24  # layers in whose cells there is room for a number


def recovered_ranks(found: Extraction, *, ax: Axes | None = None) -> Axes:
    """Draw the recovered rank of every module, a row per kind and a column per layer, and return the axes.

    Modules that did not change, or by no more than rounding, have the rank 0; those without a low rank are hatched.

    Parameters
    ----------
    found : Extraction
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    InconclusiveError
        If no module is left to be drawn.
    """
    ranks = _ranks(found)
    if not ranks:
        raise InconclusiveError("There is no recovered rank to draw: no module is shown")
    kinds = list(dict.fromkeys(kind_of(module) for module in ranks))
    layers = sorted({layer_of(module) for module in ranks}, key=lambda layer: -1 if layer is None else layer)
    grid = np.full((len(kinds), len(layers)), np.nan)
    for module, rank in ranks.items():
        grid[kinds.index(kind_of(module)), layers.index(layer_of(module))] = rank
    names = endings(kinds)
    axes = axes_of(
        ax,
        width=1.4 + 0.06 * max(map(len, names)) + 0.26 * min(len(layers), 40),
        height=1.0 + 0.24 * len(kinds),
    )
    _cells(axes, grid)
    axes.set_yticks(range(len(kinds)), names, parse_math=False)
    axes.set_xticks(range(len(layers)), ["none" if layer is None else str(layer) for layer in layers])
    axes.set_xticks(axes.get_xticks()[:: max(1, len(layers) // 20)])
    label_axes(axes, "layer", "")
    hatched = "; hatched: no low rank" if np.isinf(grid).any() else ""
    axes.set_title(f"recovered rank{hatched}", fontsize=style.TITLE_SIZE)
    return axes


def _ranks(found: Extraction) -> dict[str, float]:
    """Module -> recovered rank, infinite where there is no low one; modules without numbers are left out."""
    known = {
        row.module: np.inf if Flag.NO_LOW_RANK in row.flags else float(row.recovered_rank or 0)
        for row in found.modules
        if row.rank is not None
    }
    return {**known, **dict.fromkeys(found.unchanged, 0.0)}


def _cells(axes: Axes, grid: NDArray[np.float64]) -> None:
    from matplotlib.patches import Rectangle

    finite = grid[np.isfinite(grid)]
    top = max(1.0, float(finite.max(initial=0.0)))
    axes.imshow(
        np.where(np.isfinite(grid), grid, np.nan), cmap=style.colours(), vmin=0, vmax=top, aspect="auto"
    )
    axes.set_facecolor(style.MASKED)
    for (row, column), rank in np.ndenumerate(grid):
        if np.isinf(rank):
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1,
                    facecolor=style.UNDEFINED, edgecolor=style.HATCH_COLOUR, hatch=style.HATCH, linewidth=0,
                )
            )  # fmt: skip
        elif np.isfinite(rank) and grid.shape[1] <= _LABELLED:
            colour = style.ON_LIGHT if rank > 0.6 * top else style.ON_DARK
            axes.text(
                column, row, f"{rank:g}", ha="center", va="center", color=colour, fontsize=style.NOTE_SIZE
            )
