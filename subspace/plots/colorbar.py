"""A colour bar that marks the level of random spans.

Two isotropic random spans have phi(i, j) = max(i, j) / d on average, so a colour means nothing without that level.
The bar has a line at the level of the largest (i, j) that is drawn and, where the two can be told apart, a thinner
one at that of the smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from subspace.plots import style
from subspace.plots.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.image import AxesImage

__all__ = ["chance_span", "colour_bar"]

# Labels nearer than this, in inches, would overlap; lines nearer than this fraction of the bar would merge
_LABEL_ROOM, _LINE_GAP = 0.13, 0.03


def chance_span(panels: Sequence[Panel]) -> tuple[float, float]:
    """Return the smallest and largest level of random spans over the cells of all panels, in [0, 1]."""
    spans = [panel.chance() for panel in panels]
    return min(low for low, _ in spans), max(high for _, high in spans)


def colour_bar(
    image: AxesImage, panels: Sequence[Panel], *, ax: Axes | None = None, cax: Axes | None = None
) -> Colorbar:
    """Return the colour bar of `image`, next to `ax` or inside `cax`, with the random spans of `panels` marked.

    The bar ends in a tip where a drawn value lies beyond its limits, so that the fixed scale does not hide it.
    """
    low, high = image.get_clim()
    figure = image.axes.figure
    bar = figure.colorbar(image, ax=ax, cax=cax, extend=_extend(panels, low, high), extendfrac=0.04)
    bar.outline.set_linewidth(style.LINE_WIDTH)
    bar.ax.set_title("φ(i, j)", fontsize=style.LABEL_SIZE, family=style.FONT, parse_math=False, pad=5)
    _mark(bar, chance_span(panels), (low, high))
    bar.ax.tick_params(labelsize=style.TICK_SIZE, labelfontfamily=style.FONT, width=style.LINE_WIDTH)
    return bar


def _extend(panels: Sequence[Panel], low: float, high: float) -> str:
    values = np.concatenate([panel.phi[~np.isnan(panel.phi)].ravel() for panel in panels])
    below = bool(values.size) and float(values.min()) < low - 1e-9
    above = bool(values.size) and float(values.max()) > high + 1e-9
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def _mark(bar: Colorbar, chance: tuple[float, float], limits: tuple[float, float]) -> None:
    """Draw the lines of random spans; their labels replace the ticks that they would overlap."""
    (first, last), (low, high) = chance, limits
    gap = _LABEL_ROOM / _inches(bar.ax) * (high - low)
    marks: dict[float, str] = {}
    if low <= last <= high:
        _line(bar.ax, last, 1.4, "random spans")
        marks[last] = f"random spans {last:.2g}"
        if first >= low and last - first > _LINE_GAP * (high - low):
            _line(bar.ax, first, 0.8, "random spans, first cell")
            if min(last - first, first - low) > gap:
                marks[first] = f"random spans from {first:.2g}"
    elif last > high:
        marks[high] = f"{high:.3g} < random spans {last:.2g}"
    else:
        marks[low] = f"{low:.3g} > random spans {last:.2g}"
    free = [t for t in _round_ticks(low, high) if all(abs(t - mark) > gap for mark in marks)]
    values = sorted([*free, *marks])
    bar.set_ticks(values, labels=[marks.get(value, f"{value:.3g}") for value in values])


def _inches(axes: Axes) -> float:
    return float(axes.get_window_extent().height / axes.figure.dpi)


def _round_ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    return [float(t) for t in MaxNLocator(5).tick_values(low, high) if low - 1e-9 <= t <= high + 1e-9]


def _line(axes: Axes, level: float, width: float, label: str) -> None:
    from matplotlib.patheffects import withStroke

    halo = withStroke(linewidth=width + 1.2, foreground=style.CHANCE_HALO)
    axes.axhline(level, color=style.CHANCE_LINE, linewidth=width, label=label, path_effects=[halo])
