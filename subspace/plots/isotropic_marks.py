"""How a heatmap shows isotropic random spans: its own level in words, and dots on the cells that lie below it.

Two isotropic random spans have phi(i, j) = max(i, j) / d on average, another value on every panel, so a colour means
nothing without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from subspace.plots import colour_scale, style
from subspace.plots.drawn_panels import Drawn, isotropic_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path
    from numpy.typing import NDArray

__all__ = ["NULL", "dots", "isotropic_note", "note", "say_level", "span"]

NULL = "isotropic random spans"
_SHORT = "isotropic"
_PAD = 2.5  # points between the axes and the words above them
_DARK = 0.45  # a luminance below which dots are white


def span(low: float, high: float) -> str:
    """Return two levels in words, one where they agree in two digits.

    Examples
    --------
    >>> span(1 / 256, 64 / 256), span(0.5, 0.5)
    ('0.0039 to 0.25', '0.5')
    """
    first, last = f"{low:.2g}", f"{high:.2g}"
    return first if first == last else f"{first} to {last}"


def say_level(what: Drawn, ax: Axes, *, inches: float) -> None:
    """Write the level of isotropic random spans over the heatmap, that of the cells that it shows."""
    level = span(*isotropic_range(what.panel, what.mask))
    whole = f"{NULL}: {level}"
    fits = style.fitted(whole, inches=inches, size=style.NOTE_SIZE, lines=1) == whole
    ax.annotate(
        whole if fits else f"{_SHORT}: {level}", (0.5, 1.0), xycoords="axes fraction", xytext=(0.0, _PAD),
        textcoords="offset points", ha="center", va="bottom", fontsize=style.NOTE_SIZE, family=style.FONT,
        color=style.NOTE_COLOUR, label=_SHORT,
    )  # fmt: skip


def dots(what: Drawn, ax: Axes, extent: tuple[float, float, float, float]) -> None:
    """Put dots on the cells below isotropic random spans, white on dark colours and black on light ones."""
    from matplotlib.patches import PathPatch

    below = what.below()
    light = _luminance(what) > _DARK
    for cells, colour in ((below & ~light, style.ON_DARK), (below & light, style.ON_LIGHT)):
        if cells.any():
            patch = PathPatch(_outline(cells, extent), label=f"below {NULL}", zorder=1.5)
            patch.set(facecolor="none", edgecolor=colour, hatch=style.BELOW, linewidth=0)
            ax.add_patch(patch)


def isotropic_note() -> str:
    """Return what isotropic levels are."""
    return f"{_SHORT}: mean φ of {NULL}, max(i, j)/d"


def note(shown: Iterable[Drawn]) -> str:
    """Return what the marks of these heatmaps mean."""
    every = list(shown)
    level = "" if all(what.relative for what in every) else isotropic_note()
    dotted = f"dotted: below {NULL}" if any(what.below().any() for what in every) else ""
    return "; ".join(part for part in (level, dotted) if part)


def _luminance(what: Drawn) -> NDArray[np.float64]:
    rgb = colour_scale.colours(what)(colour_scale.norm(what)(np.nan_to_num(what.values())))[..., :3]
    return np.asarray(rgb @ np.array([0.2126, 0.7152, 0.0722]))


def _outline(cells: NDArray[np.bool_], extent: tuple[float, float, float, float]) -> Path:
    """Return the union of the cells, each row's runs being one rectangle."""
    from matplotlib.path import Path

    left, _, _, top = extent
    corners = []
    for k, row in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        corners += [(left + a, left + b, top + k) for a, b in edges.reshape(-1, 2)]
    boxes = [[(a, y), (b, y), (b, y + 1), (a, y + 1), (a, y)] for a, b, y in corners]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    return Path(np.concatenate(boxes), codes)
