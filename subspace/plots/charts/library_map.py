"""All pairs of a library as a heatmap, one measure in each of its triangles, under the tree of the clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.errors import InconclusiveError, ShapeError
from subspace.plots import style
from subspace.plots.adapter_titles import adapter_titles, text_width
from subspace.plots.canvas import fractions, new_figure, shows_its_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from subspace.geometry.cluster_tree import ClusterTree

__all__ = ["library_map"]

_NAMED = 60  # so many adapters have room for their names
_SMALLEST, _LARGEST = 2.4, 9.0  # inches of the heatmap's sides
_CELL = 0.16  # inches of a cell with a name
_TREE, _EDGE, _GAP, _BAR, _BAR_TEXT, _TITLE = 1.0, 0.12, 0.06, 0.13, 0.95, 0.34
_NEGATIVE = -0.05  # below which a value is no rounding, and the scale has a negative half
_LINE, _CUT = "#3b3b44", "#d55e00"


class _Places(NamedTuple):
    """Inches: room for names at the left and below, the side of the heatmap, the height of the tree."""

    names: float
    side: float
    tree: float


def library_map(
    upper: Any,
    names: Sequence[str],
    *,
    lower: Any = None,
    measures: tuple[str, str] = ("cosine of delta_W", "φ"),
    tree: ClusterTree | None = None,
    least: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw all pairs of a library and return the axes of the heatmap.

    Parameters
    ----------
    upper : array_like, shape (N, N)
        Symmetric, in [-1, 1]: what is above the diagonal. NaN, hatched, where two adapters cannot be compared.
    names : sequence of str
        Paths of the adapters. More than 60 have no room for their names.
    lower : array_like, shape (N, N), optional
        What is below the diagonal; None: the same.
    measures : (str, str)
        What `upper` and `lower` are called.
    tree : ClusterTree, optional
        Puts the adapters in its order, and is drawn above the heatmap. None: in the order that they have.
    least : float, optional
        Likeness at which the tree is cut into clusters, drawn as a line.
    ax : matplotlib Axes, optional
        Where to draw the heatmap alone. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    ShapeError
        If the shapes do not fit together.
    InconclusiveError
        If there is no pair.
    """
    order = list(range(len(names))) if tree is None else list(tree.order)
    values = _both(upper, upper if lower is None else lower, order)
    titles = adapter_titles(names)
    short = [titles[n] for n in order]
    if ax is not None:
        image = _cells(ax, values, short)
        _bar(ax.figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02), _title(measures, lower is None))
        return ax
    place = _places(short, tree)
    with style.paper_style():
        figure = _page(place)
        axes = figure.add_axes(fractions(figure, *_corner(place), place.side, place.side))
        image = _cells(axes, values, short)
        _beside(figure, place, image, _title(measures, lower is None))
        if tree is not None:
            _above(figure, place, tree, least)
    return shows_its_figure(axes, figure)


def _both(upper: Any, lower: Any, order: Sequence[int]) -> NDArray[np.float64]:
    """One matrix in that order with a measure in each triangle, NaN on its diagonal."""
    upper, lower = np.asarray(upper, dtype=float), np.asarray(lower, dtype=float)
    N = len(order)
    if upper.shape != (N, N) or lower.shape != (N, N):
        raise ShapeError(
            f"Similarities that do not fit {N} adapters: shapes {upper.shape} and {lower.shape}; "
            "give one row and column for each adapter"
        )
    if N < 2 or np.isnan([upper[np.triu_indices(N, 1)], lower[np.tril_indices(N, -1)]]).all():
        raise InconclusiveError("There is no pair to draw: no two adapters have a module in common")
    square = np.ix_(order, order)
    both: NDArray[np.float64] = np.where(np.tri(N, dtype=bool), lower[square], upper[square])
    np.fill_diagonal(both, np.nan)
    return both


def _title(measures: tuple[str, str], same: bool) -> str:
    first, second = (style.text(each, longest=60) for each in measures)
    return first if same else f"above the diagonal: {first}\nbelow: {second}"


def _places(short: Sequence[str], tree: ClusterTree | None) -> _Places:
    N = len(short)
    named = N <= _NAMED
    side = float(np.clip(_CELL * N, _SMALLEST, _LARGEST)) if named else 5.5
    room = text_width(short, size=style.TICK_SIZE) + 0.1 if named else 0.35
    return _Places(room, side, 0.0 if tree is None else _TREE)


def _page(place: _Places) -> Figure:
    wide = _EDGE + place.names + place.side + _GAP + _BAR + _BAR_TEXT
    tall = _EDGE + place.names + place.side + _GAP + place.tree + _TITLE + _EDGE
    return new_figure(max(wide, _EDGE + place.names + 3.2), tall)


def _corner(place: _Places) -> tuple[float, float]:
    return _EDGE + place.names, _EDGE + place.names


def _cells(axes: Axes, values: NDArray[np.float64], short: Sequence[str]) -> AxesImage:
    """The heatmap, with names where there is room; the diagonal is blank, pairs without a number are hatched."""
    from matplotlib.collections import PolyCollection

    N = len(short)
    negative = bool(np.nanmin(values) < _NEGATIVE)
    colours = style.colours_around(0.5) if negative else style.colours()
    low, high = -0.5, N - 0.5
    axes.patch.set(facecolor=style.UNDEFINED, edgecolor=style.HATCH_COLOUR, hatch=style.HATCH, linewidth=0)
    image = axes.imshow(
        values,
        cmap=colours,
        vmin=-1.0 if negative else 0.0,
        vmax=1.0,
        aspect="auto",
        interpolation="nearest",
        zorder=1,
    )
    squares = [
        [(n - 0.5, n - 0.5), (n - 0.5, n + 0.5), (n + 0.5, n + 0.5), (n + 0.5, n - 0.5)] for n in range(N)
    ]
    axes.add_collection(PolyCollection(squares, facecolors="white", zorder=2))
    axes.set_xlim(low, high)
    axes.set_ylim(high, low)
    if N <= _NAMED:
        axes.set_xticks(
            range(N), short, rotation=90, fontsize=style.TICK_SIZE, parse_math=False, family=style.FONT
        )
        axes.set_yticks(range(N), short, fontsize=style.TICK_SIZE, parse_math=False, family=style.FONT)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{N} adapters", fontsize=style.LABEL_SIZE)
        axes.set_ylabel(f"{N} adapters, in the same order", fontsize=style.LABEL_SIZE)
    axes.tick_params(length=0)
    return image


def _beside(figure: Figure, place: _Places, image: AxesImage, title: str) -> None:
    """The colour bar at the right of the heatmap, and what the triangles show over everything."""
    left, bottom = _corner(place)
    long = min(place.side, 2.6)
    top = bottom + place.side
    cax = figure.add_axes(fractions(figure, left + place.side + _GAP + 0.04, top - long, _BAR, long))
    _bar(figure.colorbar(image, cax=cax), "")
    tall = figure.get_size_inches()[1]
    figure.text(
        _EDGE / figure.get_size_inches()[0], 1 - 0.08 / tall, title, fontsize=style.TITLE_SIZE, va="top",
        family=style.FONT, parse_math=False,
    )  # fmt: skip


def _bar(bar: Any, title: str) -> None:
    bar.ax.tick_params(labelsize=style.TICK_SIZE)
    bar.outline.set_linewidth(style.LINE_WIDTH)
    if title:
        bar.ax.set_title(title, fontsize=style.NOTE_SIZE, loc="left", parse_math=False)


def _above(figure: Figure, place: _Places, tree: ClusterTree, least: float | None) -> None:
    """The tree of average linkage over the columns; its height is the mean likeness at which two parts are joined."""
    from matplotlib.collections import LineCollection

    left, bottom = _corner(place)
    axes = figure.add_axes(fractions(figure, left, bottom + place.side + _GAP, place.side, place.tree - _GAP))
    axes.add_collection(LineCollection(_branches(tree), colors=_LINE, linewidths=0.8))
    heights = tree.merges[:, 2] if len(tree.merges) else np.ones(1)
    axes.set_xlim(-0.5, len(tree.order) - 0.5)
    axes.set_ylim(0, 1.05 * max(float(heights.max()), 1e-3))
    if least is not None:
        axes.axhline(1 - least, color=_CUT, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.annotate(
            f"cut at {least:g}", (1.0, 1 - least), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", fontsize=style.NOTE_SIZE, color=_CUT, va="center", annotation_clip=False,
        )  # fmt: skip
    ticks = [tick for tick in (0.0, 0.5, 1.0, 1.5, 2.0) if tick <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, [f"{1 - tick:g}" for tick in ticks], fontsize=style.TICK_SIZE)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_ylabel("mean likeness", fontsize=style.NOTE_SIZE)


def _branches(tree: ClusterTree) -> list[list[tuple[float, float]]]:
    """Per merge the line up from one part, across, and down to the other."""
    N = len(tree.order)
    x = dict(zip(tree.order, map(float, range(N)), strict=True))
    y = dict.fromkeys(range(N), 0.0)
    lines = []
    for n, (first, second, height, _) in enumerate(tree.merges, start=N):
        a, b = int(first), int(second)
        lines.append([(x[a], y[a]), (x[a], height), (x[b], height), (x[b], y[b])])
        x[n], y[n] = (x[a] + x[b]) / 2, float(height)
    return lines
