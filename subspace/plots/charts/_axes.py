"""What charts that are no heatmap have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.plots import style
from subspace.plots.canvas import new_figure, shows_its_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["axes_of", "label_axes"]


def axes_of(ax: Axes | None, *, width: float, height: float) -> Axes:
    """Return `ax`, or without one the axes of a new figure of `width` x `height` inches."""
    if ax is not None:
        return ax
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained")
    return shows_its_figure(figure.add_subplot(), figure)


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Label both axes in this package's sizes."""
    axes.set_xlabel(x, fontsize=style.LABEL_SIZE)
    axes.set_ylabel(y, fontsize=style.LABEL_SIZE)
    axes.tick_params(labelsize=style.TICK_SIZE)
