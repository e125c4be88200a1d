"""phi(i, j), or its ratio to isotropic random spans, as a heatmap.

It is drawn as the paper draws it: i downwards from the top, j to the right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ValueRangeError
from subspace.plots import colour_scale, style
from subspace.plots.canvas import new_figure, shows_its_figure
from subspace.plots.colorbar import colour_bar
from subspace.plots.drawn_panels import Drawn, Mask, keep, masked
from subspace.plots.isotropic_marks import dots, note, say_level
from subspace.plots.panel import Panel
from subspace.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["heatmap"]


def heatmap(
    panel: Panel,
    *,
    ax: Axes | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    mask: Mask | None = None,
    colorbar: bool = True,
    relative: bool = False,
) -> Axes:
    """Draw phi(i, j) of one panel and return its Axes.

    Parameters
    ----------
    panel : Panel
        What to draw.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.
    vmin, vmax : float, optional
        Limits of the colours. None: 0 and 1, or 0.1 and 100 with `relative`. Fixed, never taken from the data: two
        figures can be compared.
    mask : {"upper", "lower"}, optional
        Leave out the cells i < j ("upper") or j < i ("lower"); they are light grey.
    colorbar : bool
        Whether to add a colour bar, with the level of isotropic random spans marked on it.
    relative : bool
        Whether colours show phi over its mean for isotropic random spans, max(i, j) / d, on a logarithmic scale.

    Raises
    ------
    ValueRangeError
        If the limits are not ascending, those of a ratio not positive, or the mask is not known.

    Notes
    -----
    Undefined cells (NaN, and those between the numerical and the declared rank) are hatched grey. Cells below
    isotropic random spans have dots.
    """
    _check(mask)
    low, high = colour_scale.limits(vmin, vmax, relative=relative)
    what = Drawn(panel, low, high, mask, relative)
    if ax is not None:
        return _draw(what, ax, colorbar)
    with style.paper_style():
        figure = new_figure(*_single_size(colorbar))
        figure.set_layout_engine("constrained")
        ax = shows_its_figure(_draw(what, figure.add_subplot(), colorbar), figure)
        _add_note(figure, what)
    return ax


def _check(mask: str | None) -> None:
    if mask not in (None, "upper", "lower"):
        raise ValueRangeError(f"Unknown mask '{shown(mask)}'; `mask` is 'upper', 'lower' or None")


def _single_size(colorbar: bool) -> tuple[float, float]:
    width, height = style.SINGLE
    return width + (1.9 if colorbar else 0.7), height + 1.0


def _add_note(figure: Figure, what: Drawn) -> None:
    inches = float(figure.get_size_inches()[0]) - 0.1
    text = style.fitted(note([what]), inches=inches, size=style.NOTE_SIZE, lines=3)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=style.NOTE_SIZE, family=style.FONT, parse_math=False)


def _draw(what: Drawn, ax: Axes, colorbar: bool) -> Axes:
    image = _cells(what, ax)
    _ground(what, ax)
    dots(what, ax, _extent(what.panel))
    _axis_text(what, ax)
    if colorbar:
        colour_bar(image, [what], ax=ax)
    return ax


def _cells(what: Drawn, ax: Axes) -> AxesImage:
    # `nearest` is resampled to the file's resolution: crisp cells in PDF viewers that would smooth them
    image = ax.imshow(
        np.ma.masked_array(what.values(), what.hidden()),
        cmap=colour_scale.colours(what),
        norm=colour_scale.norm(what),
        extent=_extent(what.panel),
        origin="upper",
        aspect="auto",
        interpolation="nearest",
        zorder=1.0,
    )
    keep(image, what)
    return image


def _extent(panel: Panel) -> tuple[float, float, float, float]:
    """Left, right, bottom, top: cell (i, j) is centred on the point (j, i), and i grows downwards."""
    return panel.j_start - 0.5, panel.last_j + 0.5, panel.last_i + 0.5, panel.i_start - 0.5


def _ground(what: Drawn, ax: Axes) -> None:
    """Put under the transparent cells what they are: hatched for undefined, plain grey for masked."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    triangle = masked(what.panel, what.mask)
    left, right, bottom, top = _extent(what.panel)
    if (np.isnan(what.panel.grid()) & ~triangle).any():
        ground = Rectangle((left, top), right - left, bottom - top, label="undefined", zorder=0.2)
        ground.set(facecolor=style.UNDEFINED, edgecolor=style.HATCH_COLOUR, hatch=style.HATCH, linewidth=0)
        ax.add_patch(ground)
    if triangle.any():
        grey = np.ma.masked_array(np.zeros(triangle.shape), ~triangle)
        cover = ax.imshow(grey, cmap=ListedColormap([style.MASKED]), extent=_extent(what.panel))
        cover.set(zorder=0.6, interpolation="nearest", label="masked")
        ax.set_aspect("auto")


def _axis_text(what: Drawn, ax: Axes) -> None:
    panel = what.panel
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    digits = len(str(panel.last_j))
    across, down = max(3, int(box.width / (0.06 + 0.06 * digits))), max(3, int(box.height / 0.15))
    ax.set_xticks(style.ticks(panel.j_start, panel.last_j, at_most=min(across, 11)))
    ax.set_yticks(style.ticks(panel.i_start, panel.last_i, at_most=min(down, 8)))
    ax.tick_params(labelsize=style.TICK_SIZE, labelfontfamily=style.FONT, width=style.LINE_WIDTH, length=2.5)
    ax.grid(False)
    ax.spines[:].set(linewidth=style.LINE_WIDTH, linestyle=style.CONTROL_FRAME if panel.control else "-")
    literal: dict[str, Any] = {"family": style.FONT, "parse_math": False, "usetex": False}
    title = style.title(panel.title, inches=box.width)
    ax.set_title(title, fontsize=style.TITLE_SIZE, pad=style.title_pad(what.relative), **literal)
    if not what.relative:
        say_level(what, ax, inches=box.width)
    x = style.axis_label(panel.j_label, inches=box.width + style.PAST_WIDTH)
    y = style.axis_label(panel.i_label, inches=box.height + style.PAST_HEIGHT)
    ax.set_xlabel(x, fontsize=style.LABEL_SIZE, labelpad=2, **literal)
    ax.set_ylabel(y, fontsize=style.LABEL_SIZE, labelpad=4, **literal)
