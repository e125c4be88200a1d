"""How near every module is to where it ends, at every checkpoint, as a map: a row per module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.plots.module_titles import endings
from subspace.plots.step_axis import name_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subspace.results.track import Track
    from subspace.results.trajectory import Trajectory

__all__ = ["trajectory_map"]

_NAMED = 64  # so many modules have room for their names
_MEASURES = {
    "to_final": "phi with the last\ncheckpoint",
    "to_next": "phi with the next\ncheckpoint",
    "from_start": "phi with the start",
}


def trajectory_map(
    found: Track, *, ax: Axes | None = None, side: str = "left", measure: str = "to_final", run: int = 0
) -> Axes:
    """Draw one measure of one side of every module at every checkpoint as colours; return the axes.

    Parameters
    ----------
    found : Track
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.
    side : str
        "a", "b", "left" or "right", with the start kept.
    measure : str
        "to_final", "to_next" or "from_start".
    run : int
        Number of the run.

    Raises
    ------
    InconclusiveError
        If no module has a value.
    ValueRangeError
        If there is no such run or measure.
    """
    if measure not in _MEASURES:
        raise ValueRangeError(f"Unknown measure {measure!r}: `measure` is one of {', '.join(_MEASURES)}")
    if not 0 <= run < len(found.runs):
        raise ValueRangeError(
            f"No run {run}: there are runs 0 to {len(found.runs) - 1}; give `run` one of them"
        )
    rows = [each for each in found.runs[run].modules if (each.side, each.init) == (side, "kept")]
    grid = np.array([_values(each, measure) for each in rows], dtype=float)
    if not np.isfinite(grid).any():
        raise InconclusiveError(f"There is nothing to draw: no module has a value on side {side}")
    names = endings([each.module for each in rows])
    wide = 3.2 + (0.06 * max(map(len, names)) if len(rows) <= _NAMED else 0.0)
    axes = axes_of(ax, width=wide + 1.1, height=1.7 + 0.13 * min(len(rows), _NAMED))
    axes.set_facecolor(style.UNDEFINED)
    image = axes.imshow(
        grid, aspect="auto", interpolation="nearest", cmap=style.colours(), vmin=0.0, vmax=1.0
    )
    name_steps(axes, found.runs[run], np.arange(grid.shape[1]))
    label_axes(axes, found.runs[run].unit, "")
    _name_rows(axes, names)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize=style.TICK_SIZE)
    bar.set_label(f"{_MEASURES[measure]}, side {side}", fontsize=style.LABEL_SIZE)
    return axes


def _values(each: Trajectory, measure: str) -> list[float]:
    return [np.nan if value is None else value for value in getattr(each, measure)]


def _name_rows(axes: Axes, names: list[str]) -> None:
    if len(names) <= _NAMED:
        shown = [style.text(name, longest=60) for name in names]
        axes.set_yticks(range(len(names)), shown, fontsize=style.TICK_SIZE, parse_math=False)
    else:
        axes.set_ylabel(f"modules 0 to {len(names) - 1}, in the order of the run", fontsize=style.LABEL_SIZE)
