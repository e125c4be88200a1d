"""Singular values of every module as a map: a row per module, a column per direction, and where to cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.plots.module_titles import endings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.patheffects import AbstractPathEffect

    from subspace.results.spectrum import ModuleSpectrum, Spectrum

__all__ = ["rank_map"]

_NAMED = 64  # so many modules have room for their names
_MOST = 512  # directions that are drawn, of a dense delta_W
_DECADES = 3.0  # of sigma over the largest that colours tell apart
_ADVISED, _RANDOM = "#ffffff", "#56b4e9"


def rank_map(found: Spectrum, *, ax: Axes | None = None) -> Axes:
    """Draw sigma over the largest of its module as colours; return the axes.

    A step through the rows is the rank that is advised, a dot per row how many stand above random factors.

    Parameters
    ----------
    found : Spectrum
        Its modules without a direction are left out.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    InconclusiveError
        If no module has a direction.
    """
    rows = [row for row in found.modules if len(row.sigma)]
    if not rows:
        raise InconclusiveError("There is no spectrum to draw: every delta_W is zero (untrained)")
    names = endings([row.module for row in rows])
    wide = 3.6 + (0.06 * max(map(len, names)) if len(rows) <= _NAMED else 0.0)
    axes = axes_of(ax, width=wide + 1.1, height=1.3 + 0.13 * min(len(rows), _NAMED))
    grid = _grid(rows)
    axes.set_facecolor(style.UNDEFINED)
    image = axes.imshow(
        grid, aspect="auto", interpolation="nearest", cmap=style.colours(), vmin=-_DECADES, vmax=0.0,
        extent=(0.5, grid.shape[1] + 0.5, len(rows) - 0.5, -0.5),
    )  # fmt: skip
    _marks(axes, rows, grid.shape[1])
    axes.set_xticks(style.ticks(1, grid.shape[1], at_most=10))
    label_axes(axes, "direction", "")
    _name_rows(axes, names)
    _scale(axes, image)
    return axes


def _grid(rows: Sequence[ModuleSpectrum]) -> np.ndarray:
    """log10 of sigma over the largest, (modules, directions); NaN beyond the numerical rank."""
    grid = np.full((len(rows), min(max(len(row.sigma) for row in rows), _MOST)), np.nan)
    for line, row in zip(grid, rows, strict=True):
        sigma = row.sigma[: len(line)]
        with np.errstate(divide="ignore"):
            line[: len(sigma)] = np.log10(sigma / row.sigma[0])
    return grid


def _marks(axes: Axes, rows: Sequence[ModuleSpectrum], width: int) -> None:
    """The rank advised, behind whose last direction the step is; and how many directions are above random ones."""
    edges = np.arange(len(rows) + 1) - 0.5
    advised = np.array(
        [np.nan if row.advised_rank is None else row.advised_rank for row in rows], dtype=float
    )
    steps = np.minimum(np.repeat(advised, 2), width) + 0.5
    axes.plot(steps, np.repeat(edges, 2)[1:-1], color="#000000", linewidth=3.0, label="_halo")
    axes.plot(steps, np.repeat(edges, 2)[1:-1], color=_ADVISED, linewidth=1.4, label="rank advised")
    above = [(row.above_random, y) for y, row in enumerate(rows) if row.above_random is not None]
    if above:
        x, y = zip(*above, strict=True)
        axes.plot(
            np.minimum(x, width) + 0.5, y, "D", color=_RANDOM, markersize=4, markeredgecolor="#000000",
            markeredgewidth=0.6, label=f"last above {_null(rows)}", linestyle="none", clip_on=False,
        )  # fmt: skip
    axes.set_xlim(0.5, width + 0.5)
    legend = axes.legend(
        fontsize=style.NOTE_SIZE, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2,
        borderpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_path_effects"):
            handle.set_path_effects(_outlined())


def _outlined() -> list[AbstractPathEffect]:
    """What makes a white line visible on white paper."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=3.0, foreground="#000000"), Normal()]


def _null(rows: Sequence[ModuleSpectrum]) -> str:
    kinds = {row.null for row in rows if row.null}
    return f"{kinds.pop()}, 5 %" if len(kinds) == 1 else "random updates, 5 %"


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names beside their rows while there is room, otherwise their numbers, and what these are."""
    if len(names) <= _NAMED:
        shown = [style.text(name, longest=60) for name in names]
        axes.set_yticks(range(len(names)), shown, fontsize=style.TICK_SIZE, parse_math=False)
    else:
        axes.set_ylabel(
            f"modules 0 to {len(names) - 1}, in the order of the table", fontsize=style.LABEL_SIZE
        )


def _scale(axes: Axes, image: object) -> None:
    """The colours, with the powers of ten that they stand for."""
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, extend="min")  # type: ignore[arg-type]
    decades = range(-int(_DECADES), 1)
    bar.set_ticks([float(n) for n in decades], labels=["1" if n == 0 else f"{10.0**n:g}" for n in decades])
    bar.ax.tick_params(labelsize=style.TICK_SIZE)
    bar.set_label("singular value over the largest", fontsize=style.LABEL_SIZE)
