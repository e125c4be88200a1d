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
from subspace.plots.isotropic_marks import NULL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Normalize
    from matplotlib.image import AxesImage

__all__ = ["colour_bar"]

_LABEL_ROOM = 0.13  # inches; labels nearer than this would overlap


def colour_bar(
    image: AxesImage, shown: Sequence[Drawn], *, ax: Axes | None = None, cax: Axes | None = None
) -> Colorbar:
    """Return the colour bar of `image`, next to `ax` or inside `cax`, with the levels of what is `shown` marked.

    The bar ends in a tip where a drawn value lies beyond its limits, so that the fixed scale does not hide it.
    """
    one = shown[0]  # all have one scale
    bar = image.axes.figure.colorbar(image, ax=ax, cax=cax, extend=_extend(shown), extendfrac=0.04)
    bar.outline.set_linewidth(style.LINE_WIDTH)
    bar.ax.set_title(
        colour_scale.title(one), fontsize=style.LABEL_SIZE, family=style.FONT, parse_math=False, pad=5,
        loc="left" if one.relative else "center",
    )  # fmt: skip
    bar.ax.minorticks_off()
    _mark(bar, one, {1.0} if one.relative else _levels(shown))
    bar.ax.tick_params(labelsize=style.TICK_SIZE, labelfontfamily=style.FONT, width=style.LINE_WIDTH)
    return bar


def _levels(shown: Sequence[Drawn]) -> set[float]:
    return {isotropic_range(what.panel, what.mask)[1] for what in shown}


def _extend(shown: Sequence[Drawn]) -> str:
    values = np.concatenate([what.values()[~what.hidden()] for what in shown])
    below = bool(values.size) and float(values.min()) < shown[0].vmin - 1e-9
    above = bool(values.size) and float(values.max()) > shown[0].vmax + 1e-9
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def _mark(bar: Colorbar, scale: Drawn, levels: set[float]) -> None:
    """Draw a line at every level; the labels replace the ticks that they would overlap."""
    for level in levels:
        if scale.vmin <= level <= scale.vmax:
            _line(bar.ax, level)
    height = colour_scale.norm(scale)
    gap = _LABEL_ROOM / _inches(bar.ax)
    labels = {
        min(max(group[0], scale.vmin), scale.vmax): _label(group, scale)
        for group in _groups(sorted(levels, reverse=True), height, gap)
    }
    free = [t for t in _round_ticks(scale) if all(abs(height(t) - height(mark)) > gap for mark in labels)]
    values = sorted([*free, *labels])
    bar.set_ticks(values, labels=[labels.get(value, f"{value:.3g}") for value in values])


def _groups(levels: Sequence[float], height: Normalize, gap: float) -> Iterator[list[float]]:
    """Yield the levels, which descend, in groups whose labels would overlap."""
    group = [levels[0]]
    for level in levels[1:]:
        if np.clip(height(group[0]), 0, 1) - np.clip(height(level), 0, 1) > gap:
            yield group
            group = []
        group.append(level)
    yield group


def _label(group: Sequence[float], scale: Drawn) -> str:
    if scale.relative:
        return f"1, {NULL}"
    highest = f"{group[0]:.2g}"
    if group[-1] > scale.vmax:
        return f"{scale.vmax:.3g} < {NULL} {highest}"
    if group[0] < scale.vmin:
        return f"{scale.vmin:.3g} > {NULL} {highest}"
    return f"{NULL} {highest}" if f"{group[-1]:.2g}" == highest else f"{NULL} ≤ {highest}"


def _inches(axes: Axes) -> float:
    return float(axes.get_window_extent().height / axes.figure.dpi)


def _round_ticks(scale: Drawn) -> list[float]:
    from matplotlib.ticker import Locator, LogLocator, MaxNLocator

    low, high = scale.vmin, scale.vmax
    digits = (1.0,) if high / max(low, 1e-300) >= 100 else (1.0, 2.0, 5.0)
    locator: Locator = LogLocator(subs=digits) if scale.relative else MaxNLocator(5)
    return [float(t) for t in locator.tick_values(low, high) if low - 1e-9 <= t <= high + 1e-9]


def _line(axes: Axes, level: float) -> None:
    from matplotlib.patheffects import withStroke

    halo = withStroke(linewidth=2.6, foreground=style.NULL_HALO)
    axes.axhline(level, color=style.NULL_LINE, linewidth=1.4, label=NULL, path_effects=[halo])
