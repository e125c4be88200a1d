"""The scale of a heatmap's colours: phi itself, or phi over its mean for isotropic random spans.

phi has a linear scale. Its ratio to isotropic random spans has a logarithmic one with 1 as its darkest colour: above 1
come the colours of phi, below 1 blues, and both grow lighter with their distance from 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import ValueRangeError
from subspace.plots import style

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize

    from subspace.plots.drawn_panels import Drawn

__all__ = ["PHI", "RATIO", "colours", "limits", "norm", "title"]

# Limits of the colours. Fixed, never taken from the data: two figures can be compared
PHI, RATIO = (0.0, 1.0), (0.1, 100.0)


def limits(vmin: float | None, vmax: float | None, *, relative: bool) -> tuple[float, float]:
    """Return the limits of the colours, the usual ones for None.

    Raises
    ------
    ValueRangeError
        If they do not ascend, or those of a ratio are not positive.
    """
    low, high = RATIO if relative else PHI
    low, high = low if vmin is None else vmin, high if vmax is None else vmax
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueRangeError(f"Colour limits {low} and {high} do not ascend; give `vmin` < `vmax`")
    if relative and low <= 0:
        raise ValueRangeError(
            f"Colour limit {low} is not positive, and a ratio has a logarithmic scale; give `vmin` > 0"
        )
    return low, high


def norm(what: Drawn) -> Normalize:
    """Return the map from what is drawn to 0 (`vmin`) ... 1 (`vmax`)."""
    from matplotlib.colors import LogNorm, Normalize

    kind = LogNorm if what.relative else Normalize
    scaled: Normalize = kind(what.vmin, what.vmax)
    return scaled


def colours(what: Drawn) -> Colormap:
    """Return the colour map, in which the ratio 1 has the darkest colour."""
    if not what.relative:
        return style.colours()
    low, high = np.log([what.vmin, what.vmax])
    return style.colours_around(float(np.clip(-low / (high - low), 0.0, 1.0)))


def title(what: Drawn) -> str:
    """Return what the colours show, for the title of the colour bar."""
    return "φ over isotropic\nrandom spans" if what.relative else "φ(i, j)"
