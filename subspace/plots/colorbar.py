"""A colour bar that marks the levels of isotropic random spans.

The bar has a line at the level of the largest (i, j) that each heatmap shows: a wide panel and a zoomed one have
different levels. Where colours show phi over isotropic random spans, the one line is at 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from subspace.plots import colour_scale, style
from subspace.plots.drawn_panels import Drawn, isotropic_range
from subspace.plots.isotropic_marks import NULL, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.image import AxesImage

__all__ = ["colour_bar"]

_LABEL_ROOM = 0.13  # inches; labels nearer than this would overlap


def colour_bar(
    image: AxesImage, shown: Sequence[Drawn], *, ax: Axes | None = None, cax: Axes | None = None
) -> Colorbar:
    """Return the colour bar of `image`, next to `ax` or inside `cax`, with the levels of what is `shown` marked.

    The bar ends in a tip where a drawn value lies beyond its limits, so that the fixed scale does not hide it.
    """
    bar = image.axes.figure.colorbar(
        image, ax=ax, cax=cax, extend=_extend(shown, *image.get_clim()), extendfrac=0.04
    )
    bar.outline.set_linewidth(style.LINE_WIDTH)
    bar.ax.set_title(
        colour_scale.title(shown[0]), fontsize=style.LABEL_SIZE, family=style.FONT, parse_math=False, pad=5,
        loc="left" if shown[0].relative else "center",
    )  # fmt: skip
    bar.ax.minorticks_off()
    _mark(bar, {1.0} if shown[0].relative else _levels(shown))
    bar.ax.tick_params(labelsize=style.TICK_SIZE, labelfontfamily=style.FONT, width=style.LINE_WIDTH)
    return bar


def _levels(shown: Sequence[Drawn]) -> set[float]:
    return {isotropic_range(what.panel, what.mask)[1] for what in shown}


def _extend(shown: Sequence[Drawn], low: float, high: float) -> str:
    values = np.concatenate([what.values()[~what.hidden()] for what in shown])
    below = bool(values.size) and float(values.min()) < low - 1e-9
    above = bool(values.size) and float(values.max()) > high + 1e-9
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def _mark(bar: Colorbar, levels: set[float]) -> None:
    """Draw a line at every level; the labels replace the ticks that they would overlap."""
    low, high = bar.norm.vmin, bar.norm.vmax
    for level in levels:
        if low <= level <= high:
            _line(bar.ax, level)
    gap = _LABEL_ROOM / _inches(bar.ax)
    labels = {place: _label(group, low, high) for place, group in _groups(bar, levels, gap)}
    taken = [bar.norm(place) for place in labels]
    free = [t for t in _round_ticks(bar) if all(abs(bar.norm(t) - mark) > gap for mark in taken)]
    values = sorted([*free, *labels])
    bar.set_ticks(values, labels=[labels.get(value, f"{value:.3g}") for value in values])


def _groups(bar: Colorbar, levels: set[float], gap: float) -> Iterator[tuple[float, list[float]]]:
    """Yield the levels whose labels would overlap in groups, each with the place of its label: its largest level."""
    low, high = bar.norm.vmin, bar.norm.vmax
    group: list[float] = []
    for level in sorted(levels, reverse=True):
        place = min(max(level, low), high)
        if group and bar.norm(min(max(group[0], low), high)) - bar.norm(place) > gap:
            yield min(max(group[0], low), high), group
            group = []
        group.append(level)
    yield min(max(group[0], low), high), group


def _label(group: Sequence[float], low: float, high: float) -> str:
    text = f"{NULL} {span(group[-1], group[0])}"
    if group[-1] > high:
        return f"{high:.3g} < {text}"
    return f"{low:.3g} > {text}" if group[0] < low else text


def _inches(axes: Axes) -> float:
    return float(axes.get_window_extent().height / axes.figure.dpi)


def _round_ticks(bar: Colorbar) -> list[float]:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = bar.norm.vmin, bar.norm.vmax
    locator = LogLocator() if isinstance(bar.norm, LogNorm) else MaxNLocator(5)
    return [float(t) for t in locator.tick_values(low, high) if low - 1e-9 <= t <= high + 1e-9]


def _line(axes: Axes, level: float) -> None:
    from matplotlib.patheffects import withStroke

    halo = withStroke(linewidth=2.6, foreground=style.NULL_HALO)
    axes.axhline(level, color=style.NULL_LINE, linewidth=1.4, label=NULL, path_effects=[halo])
