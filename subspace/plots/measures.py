"""Results that are no heatmap, drawn: spectra of an adapter, and table 7 as points beside chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters.naming.sorting import shared_beginning
from subspace.errors import InconclusiveError
from subspace.plots import style
from subspace.plots.canvas import new_figure, shows_its_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subspace.results.amplification import Amplification
    from subspace.results.inspection import Inspection

__all__ = ["projections", "spectra"]

_LABELLED = 32  # so many modules still have room for their names
_COLOURS = {"of W": "#f2b07b", "of delta_W": "#c63f59", "random": "#3b1f4e"}


def spectra(found: Inspection, *, ax: Axes | None = None) -> Axes:
    """Draw the singular values of every module's delta_W over its largest, on a logarithmic axis; return the axes.

    Raises
    ------
    InconclusiveError
        If no module has a direction.
    """
    rows = [row for row in found.modules if row.S.size]
    if not rows:
        raise InconclusiveError("a spectrum needs a trained module: got none; every delta_W is zero")
    axes = _axes(ax, width=3.6)
    for row, colour in zip(rows, style.colours()(np.linspace(0.15, 0.85, len(rows))), strict=True):
        k = np.arange(1, row.S.size + 1)
        axes.plot(
            k,
            row.S / row.S[0],
            color=colour,
            linewidth=0.8,
            marker="." if k.size < 3 else None,
            label=row.module,
        )
    axes.set_yscale("log")
    _labels(axes, "direction", "singular value over the largest")
    return axes


def projections(result: Amplification, *, ax: Axes | None = None) -> Axes:
    """Draw table 7 at each module's largest rank: ``||U^T W V||_F`` of W's own, of delta_W's and of random directions.

    A bar at a random value is two standard deviations of it either way.

    Raises
    ------
    InconclusiveError
        If no module has a direction.
    """
    rows = [module for module in result.modules if module.ranks]
    if not rows:
        raise InconclusiveError("projections need a trained module: got none; every delta_W is zero")
    axes, x = _axes(ax, width=2.6 + 0.13 * min(len(rows), 60), height=3.6), np.arange(len(rows))
    last = [module.ranks[-1] for module in rows]
    of_delta_W = [np.nan if rank.proj_delta_W is None else rank.proj_delta_W for rank in last]
    random, spread = np.array([[rank.proj_random, 2 * rank.proj_random_sd] for rank in last]).T
    axes.plot(x, [rank.proj_W for rank in last], "^", markersize=4, color=_COLOURS["of W"], label="W's own")
    axes.plot(x, of_delta_W, "o", markersize=4, color=_COLOURS["of delta_W"], label="delta_W's")
    below = np.minimum(spread, 0.9 * random)  # a bar to zero has no end on a logarithmic axis
    axes.errorbar(
        x, random, (below, spread), fmt="_", color=_COLOURS["random"], label="random", linewidth=0.8
    )
    axes.set_yscale("log")
    _labels(axes, "module", "norm of W in the directions")
    _names(axes, [module.module for module in rows])
    axes.legend(
        fontsize=style.NOTE_SIZE, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    return axes


def _axes(ax: Axes | None, *, width: float, height: float = 2.8) -> Axes:
    if ax is not None:
        return ax
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained")
    return shows_its_figure(figure.add_subplot(), figure)


def _labels(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=style.LABEL_SIZE)
    axes.set_ylabel(y, fontsize=style.LABEL_SIZE)
    axes.tick_params(labelsize=style.TICK_SIZE)


def _names(axes: Axes, modules: list[str]) -> None:
    """Names under their modules while there is room, their numbers otherwise."""
    if len(modules) > _LABELLED:
        return
    names = [style.text(name, longest=32) for name in shared_beginning(modules)[1]]
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
