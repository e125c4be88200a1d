"""What a figure shows, kept on the figure itself: `drawn` asks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from subspace.plots.panel import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["Drawn", "Mask", "drawn", "keep", "masked"]

Mask = Literal["upper", "lower"]

# The attribute of an image that holds its `Drawn`
_RECORD = "subspace_drawn"


@dataclass(frozen=True, eq=False)
class Drawn:
    """What one heatmap shows: its panel, the limits of its colours, and the triangle it leaves out."""

    panel: Panel
    vmin: float
    vmax: float
    mask: Mask | None


def keep(image: AxesImage, shows: Drawn) -> None:
    """Note on an image what it shows."""
    vars(image)[_RECORD] = shows


def drawn(figure: Figure) -> tuple[Drawn, ...]:
    """Return what each heatmap on the figure shows, in the order they were added."""
    records = (vars(image).get(_RECORD) for axes in figure.axes for image in axes.images)
    return tuple(record for record in records if record is not None)


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
