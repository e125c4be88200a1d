"""When the directions of the last checkpoint appear, and when delta_W has half of its strength along them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.plots.step_axis import name_steps, step_positions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subspace.results.track import Track
    from subspace.results.trajectory import Birth, Run

__all__ = ["births"]

_NAMES = {"a": "A", "b": "B", "left": "outputs of ΔW", "right": "inputs of ΔW"}
_COLOURS = dict(zip(("a", "b", "left", "right"), style.CATEGORIES, strict=False))


def births(found: Track, *, ax: Axes | None = None, run: int = 0) -> Axes:
    """Draw which share of the last checkpoint's directions is there by each checkpoint; return the axes.

    A step per side, dashed with the start removed. The thin line is the share along which delta_W has half of its final
    strength; with base weights, black is the number of intruder dimensions, on an axis of its own.

    Parameters
    ----------
    found : Track
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.
    run : int
        Number of the run.

    Raises
    ------
    InconclusiveError
        If the run has one checkpoint only, or no direction.
    ValueRangeError
        If there is no such run.
    """
    if not 0 <= run < len(found.runs):
        raise ValueRangeError(
            f"No run {run}: there are runs 0 to {len(found.runs) - 1}; give `run` one of them"
        )
    chosen = found.runs[run]
    totals = [each for each in chosen.total if each.directions]
    if len(chosen.checkpoints) < 2 or not totals:
        raise InconclusiveError(f"Run {run} has one checkpoint or no direction, so there is no birth to draw")
    axes = axes_of(ax, width=4.8, height=3.3)
    x = step_positions(chosen)
    for n, each in enumerate(totals):
        removed = each.init == "removed"
        axes.step(
            x, np.array(each.born) / each.directions, where="post", color=_COLOURS[each.side],
            linewidth=max(1.0, 3.4 - 0.6 * n),  # so that lines that lie on each other are seen
            linestyle=(0, (4, 1.5)) if removed else "-",
            label=f"{_NAMES[each.side]}{', start removed' if removed else ''}: {each.directions} directions",
        )  # fmt: skip
    _halves(axes, x, chosen)
    _intruders(axes, x, chosen)
    name_steps(axes, chosen, x)
    axes.set_ylim(-0.03, 1.06)
    label_axes(axes, chosen.unit, "share of the last checkpoint's\ndirections that is there")
    axes.legend(
        fontsize=style.NOTE_SIZE, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2,
        borderpad=0.2, handlelength=2.0, columnspacing=1.0,
    )  # fmt: skip
    return axes


def _halves(axes: Axes, x: np.ndarray, run: Run) -> None:
    own = [birth for each in run.modules if each.side == "left" for birth in each.births]
    known: list[Birth] = [birth for birth in own if birth.half is not None]
    if known:
        share = [sum((birth.half or 0) <= n for birth in known) / len(known) for n in range(len(x))]
        axes.step(
            x,
            share,
            where="post",
            color=style.OTHERS,
            linewidth=1.0,
            label="ΔW has half of its strength there",
        )


def _intruders(axes: Axes, x: np.ndarray, run: Run) -> None:
    counts = run.total[0].intruders
    if not any(count is not None for count in counts):
        return
    other = axes.twinx()
    values = np.array([np.nan if count is None else count for count in counts], dtype=float)
    other.plot(x, values, "-", color="#000000", linewidth=1.0)
    axes.plot([], [], "-", color="#000000", linewidth=1.0, label="intruder dimensions (right axis)")
    other.set_ylim(0, max(1.0, 1.06 * float(np.nanmax(values))))
    label_axes(other, "", "intruder dimensions of W + ΔW")
