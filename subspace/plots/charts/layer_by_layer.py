"""One kind of module in every layer against every layer: whether what two adapters share belongs to its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import InconclusiveError, ShapeError
from subspace.plots import style
from subspace.plots.canvas import fractions, new_figure, shows_its_figure
from subspace.plots.module_titles import endings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

__all__ = ["layer_by_layer"]

_COLUMNS = 4
_SIDE, _EDGE, _TICKS, _TITLE, _LABEL, _BAR, _BAR_TEXT = 1.7, 0.12, 0.3, 0.55, 0.2, 0.13, 0.75


def layer_by_layer(
    phi: Mapping[str, Any],
    layers: Mapping[str, Sequence[int]] | None = None,
    *,
    chance: Mapping[str, float] | None = None,
    measure: str = "φ at full rank",
    pair: tuple[str, str] = ("layer of the first adapter", "layer of the second"),
    ax: Axes | None = None,
) -> Axes:
    """Draw a heatmap of layers for every kind of module and return the first axes.

    Parameters
    ----------
    phi : mapping of str to array_like, shapes (L, L)
        By the name of a kind, such as `layers.*.self_attn.q_proj`: similarity of layer l of the first adapter (row)
        with layer k of the second (column), or its mean over the pairs of a library; in [0, 1], NaN where undefined.
    layers : mapping of str to sequence of int, optional
        Numbers of the layers of every kind. None: from 0.
    chance : mapping of str to float, optional
        phi of isotropic random spans, in the title of each heatmap.
    measure : str
        What the colours show.
    pair : (str, str)
        Labels of rows and columns.
    ax : matplotlib Axes, optional
        Where to draw the only kind. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    ShapeError
        If a matrix is not square, its layers are not as many, or `ax` is given for several kinds.
    InconclusiveError
        If there is no kind of module.
    """
    grids = {kind: _square(kind, values, layers) for kind, values in phi.items()}
    if not grids:
        raise InconclusiveError("There are no layers to draw: no kind of module is in several layers")
    numbers = {
        kind: list(range(len(grid)) if layers is None else layers[kind]) for kind, grid in grids.items()
    }
    short = dict(zip(grids, endings(list(grids)), strict=True))
    titles = {
        kind: _title(short[kind], grid, None if chance is None else chance[kind])
        for kind, grid in grids.items()
    }
    highest = _highest(grids.values())
    if ax is not None:
        if len(grids) != 1:
            raise ShapeError(f"One axes for {len(grids)} kinds of module; give `ax` for one kind only")
        (kind,) = grids
        image = _cells(ax, grids[kind], numbers[kind], titles[kind], highest)
        _label(ax, pair, True, True)
        _bar(ax.figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02), measure)
        return ax
    with style.paper_style():
        figure, first = _page(grids, numbers, titles, pair, highest, measure)
    return shows_its_figure(first, figure)


def _square(kind: str, values: Any, layers: Mapping[str, Sequence[int]] | None) -> NDArray[np.float64]:
    grid = np.asarray(values, dtype=float)
    expected = len(grid) if layers is None else len(layers[kind])
    if grid.ndim != 2 or grid.shape != (expected, expected):
        raise ShapeError(f"Not a square of {expected} layers: shape {grid.shape}, in {style.text(kind)}")
    return grid


def _title(kind: str, grid: NDArray[np.float64], chance: float | None) -> str:
    """The kind, and the means of equal layers, of different ones and of random spans."""
    same = np.eye(len(grid), dtype=bool)
    means = [f"same layer {_mean(grid[same])}"]
    if len(grid) > 1:
        means.append(f"other {_mean(grid[~same])}")
    lines = [style.fitted(kind, inches=_SIDE + 0.3, size=style.TITLE_SIZE, lines=1), ", ".join(means)]
    if chance is not None:
        lines.append(f"isotropic random spans {_short(chance)}")
    return "\n".join(lines)


def _mean(values: NDArray[np.float64]) -> str:
    known = values[~np.isnan(values)]
    return _short(float(known.mean())) if known.size else "undefined"


def _short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.095 else f"{value:.1g}"


def _highest(grids: Any) -> float:
    """1, or where nothing comes near it a round number above all, so that differences are seen."""
    largest = max((float(np.nanmax(grid)) for grid in grids if np.isfinite(grid).any()), default=1.0)
    return next((top for top in (0.1, 0.2, 0.5) if largest <= top), 1.0)


def _page(
    grids: Mapping[str, NDArray[np.float64]],
    numbers: Mapping[str, Sequence[int]],
    titles: Mapping[str, str],
    pair: tuple[str, str],
    highest: float,
    measure: str,
) -> tuple[Figure, Axes]:
    columns = min(_COLUMNS, len(grids))
    rows = -(-len(grids) // columns)
    across, up = _SIDE + _TICKS + 0.15, _SIDE + _TICKS + _TITLE
    wide = _EDGE + _LABEL + columns * across + _BAR + _BAR_TEXT
    tall = 2 * _EDGE + _LABEL + rows * up
    figure = new_figure(wide, tall)
    drawn = []
    for n, kind in enumerate(grids):
        row, column = divmod(n, columns)
        left = _EDGE + _LABEL + column * across + _TICKS
        axes = figure.add_axes(
            fractions(figure, left, tall - _EDGE - row * up - _TITLE - _SIDE, _SIDE, _SIDE)
        )
        image = _cells(axes, grids[kind], numbers[kind], titles[kind], highest)
        _label(axes, pair, column == 0, n + columns >= len(grids))
        drawn.append((axes, image))
    long = min(_SIDE, 2.4)
    place = _EDGE + _LABEL + columns * across + 0.1, tall - _EDGE - _TITLE - long, _BAR, long
    _bar(figure.colorbar(drawn[0][1], cax=figure.add_axes(fractions(figure, *place))), measure)
    return figure, drawn[0][0]


def _cells(
    axes: Axes, grid: NDArray[np.float64], layers: Sequence[int], title: str, highest: float
) -> AxesImage:
    L = len(grid)
    axes.patch.set(facecolor=style.UNDEFINED, edgecolor=style.HATCH_COLOUR, hatch=style.HATCH, linewidth=0)
    image = axes.imshow(
        grid, cmap=style.colours(), vmin=0, vmax=highest, aspect="auto", interpolation="nearest", zorder=1
    )
    axes.set_xlim(-0.5, L - 0.5)
    axes.set_ylim(L - 0.5, -0.5)
    places = style.ticks(0, L - 1, at_most=8)
    named = [str(layers[n]) for n in places]
    axes.set_xticks(places, named, fontsize=style.TICK_SIZE)
    axes.set_yticks(places, named, fontsize=style.TICK_SIZE)
    axes.tick_params(length=2)
    axes.set_title(title, fontsize=style.NOTE_SIZE, loc="left", parse_math=False, pad=4)
    return image


def _label(axes: Axes, pair: tuple[str, str], left: bool, below: bool) -> None:
    rows, columns = (style.axis_label(each, inches=_SIDE + 0.2) for each in pair)
    if left:
        axes.set_ylabel(rows, fontsize=style.LABEL_SIZE, parse_math=False)
    if below:
        axes.set_xlabel(columns, fontsize=style.LABEL_SIZE, parse_math=False)


def _bar(bar: Any, measure: str) -> None:
    bar.ax.tick_params(labelsize=style.TICK_SIZE)
    bar.outline.set_linewidth(style.LINE_WIDTH)
    bar.ax.set_title(
        style.fitted(measure, inches=0.8, size=style.NOTE_SIZE, lines=3), fontsize=style.NOTE_SIZE, loc="left",
        parse_math=False,
    )  # fmt: skip
