"""What a figure shows, kept on the figure itself: `drawn` asks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from subspace.plots.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["Drawn", "Mask", "drawn", "isotropic_range", "keep", "masked"]

Mask = Literal["upper", "lower"]

# The attribute of an image or of axes that holds what it shows
_RECORD = "subspace_drawn"
# phi this far below the mean of isotropic random spans is no rounding of it
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Drawn:
    """What one heatmap shows: its panel, the limits of its colours, the triangle it leaves out.

    With `relative`, colours show phi over its mean for isotropic random spans, and so do the limits.
    """

    panel: Panel
    vmin: float
    vmax: float
    mask: Mask | None
    relative: bool = False

    def values(self) -> NDArray[np.float64]:
        """Return what the colours show on every cell, of the shape of `panel.grid()`; NaN where undefined."""
        grid = self.panel.grid()
        return grid / self.panel.isotropic() if self.relative else grid

    def hidden(self) -> NDArray[np.bool_]:
        """Return which cells have no colour: undefined or left out."""
        return np.isnan(self.panel.grid()) | masked(self.panel, self.mask)

    def below(self) -> NDArray[np.bool_]:
        """Return which of the coloured cells have less than isotropic random spans have on average."""
        return ~self.hidden() & (self.panel.grid() < self.panel.isotropic() - _ROUNDING)


def keep(artist: AxesImage | Axes, *shows: Drawn) -> None:
    """Note on a heatmap what it shows, or on axes what their marks show, each as a panel of one cell."""
    vars(artist)[_RECORD] = shows


def drawn(figure: Figure) -> tuple[Drawn, ...]:
    """Return what each heatmap on the figure shows, and each mark of effects, in the order they were added."""
    artists = (artist for axes in figure.axes for artist in (*axes.images, axes))
    return tuple(record for artist in artists for record in vars(artist).get(_RECORD, ()))


def masked(panel: Panel, mask: Mask | None) -> NDArray[np.bool_]:
    """Return which drawn cells the mask leaves out, a matrix of the shape of `panel.grid()`.

    Examples
    --------
    >>> masked(Panel(np.ones((2, 2)), d=4), "lower")
    array([[False, False],
           [ True, False]])
    """
    i, j = panel.indices()
    if mask is None:
        return np.zeros((i.size, j.size), dtype=np.bool_)
    return np.asarray(i < j if mask == "upper" else j < i, dtype=np.bool_)


def isotropic_range(panel: Panel, mask: Mask | None = None) -> tuple[float, float]:
    """Return the smallest and largest mean of isotropic random spans over the cells that have a colour, in [0, 1].

    Where no cell has one (an adapter without directions), those that are undefined stand in for them.

    Examples
    --------
    >>> wide = Panel(np.ones((2, 8)), d=16)
    >>> isotropic_range(wide), isotropic_range(wide.cropped(j=(1, 2)), "upper")
    ((0.0625, 0.5), (0.0625, 0.125))
    """
    shown = ~masked(panel, mask)
    defined = shown & ~np.isnan(panel.grid())
    cells = next((cells for cells in (defined, shown) if cells.any()), ~shown)
    levels = panel.isotropic()[cells]
    return float(levels.min()), float(levels.max())
