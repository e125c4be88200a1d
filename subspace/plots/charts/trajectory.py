"""How near an adapter is to where it ends, against the step, side by side with chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.plots.step_axis import name_steps, step_positions
from subspace.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from subspace.results.track import Track
    from subspace.results.trajectory import Run, Trajectory

__all__ = ["trajectory"]

_NAMES = {"a": "A", "b": "B", "left": "outputs of ΔW", "right": "inputs of ΔW"}
_COLOURS = dict(zip(("a", "b", "left", "right"), style.CATEGORIES, strict=False))


def trajectory(found: Track, *, ax: Axes | None = None, side: str | None = None, run: int = 0) -> Axes:
    """Draw phi with the last checkpoint against the step, the mean over all modules; return the axes.

    A line per side, dashed with the start removed; black is the signed cosine of delta_W. Grey is two standard
    deviations either way of isotropic random spans, of the sides that are drawn; dots are the matched control of each.

    Parameters
    ----------
    found : Track
        Of a run with two checkpoints at least.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.
    side : str, optional
        One side alone; by default all that were measured.
    run : int
        Number of the run.

    Raises
    ------
    InconclusiveError
        If the run has one checkpoint only.
    ValueRangeError
        If there is no such run or side.
    """
    chosen = _run(found, run)
    totals = [each for each in chosen.total if side in (None, each.side)]
    if not totals:
        raise ValueRangeError(
            f"Side {side!r} was not measured; there are {listed(dict.fromkeys(each.side for each in chosen.total))}"
        )
    axes = axes_of(ax, width=4.8, height=3.3)
    x = step_positions(chosen)
    _chance(axes, x, totals)
    for each in totals:
        _line(axes, x, each)
    _cosine(axes, x, totals[0])
    name_steps(axes, chosen, x)
    axes.set_ylim(min(-0.03, axes.get_ylim()[0]), 1.03)
    label_axes(axes, chosen.unit, "phi with the last checkpoint")
    modules = len({each.module for each in chosen.modules})
    axes.legend(
        title=f"mean of {counted(modules, 'module')}" if modules > 1 else None, title_fontsize=style.NOTE_SIZE,
        fontsize=style.NOTE_SIZE, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), alignment="left",
        borderpad=0.2, handlelength=2.4,
    )  # fmt: skip
    return axes


def _run(found: Track, number: int) -> Run:
    if not 0 <= number < len(found.runs):
        raise ValueRangeError(
            f"No run {number}: there are runs 0 to {len(found.runs) - 1}; give `run` one of them"
        )
    run = found.runs[number]
    if len(run.checkpoints) < 2:
        raise InconclusiveError(
            f"Run {number} has one checkpoint, so there is no course to draw; give `run` another"
        )
    return run


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _line(axes: Axes, x: np.ndarray, each: Trajectory) -> None:
    removed = each.init == "removed"
    name = f"{_NAMES[each.side]}{', start removed' if removed else ''}"
    colour = _COLOURS[each.side]
    axes.plot(
        x, _floats(each.to_final), "o" if not removed else "s", markersize=3, color=colour, linewidth=1.4, label=name,
        linestyle=(0, (4, 1.5)) if removed else "-",
    )  # fmt: skip
    control = _floats(each.to_final_control)
    if np.isfinite(control).any() and not removed:
        axes.plot(x, control, ":", color=colour, linewidth=1.2, label=f"{_NAMES[each.side]}, control")


def _cosine(axes: Axes, x: np.ndarray, each: Trajectory) -> None:
    cosine = _floats(each.cosine)
    if np.isfinite(cosine).any():
        axes.plot(x, cosine, "-", color="#000000", linewidth=1.0, label="cosine of ΔW")


def _chance(axes: Axes, x: np.ndarray, totals: Sequence[Trajectory]) -> None:
    """From the lowest to the highest of the sides, with two standard deviations of each."""
    means = np.stack([_floats(each.to_final_isotropic) for each in totals])
    sds = np.stack([_floats(each.to_final_isotropic_sd) for each in totals])
    there = np.isfinite(means).any(axis=0)
    if not there.any():
        return
    low = np.nanmin((means - 2 * sds)[:, there], axis=0)
    high = np.nanmax((means + 2 * sds)[:, there], axis=0)
    axes.fill_between(
        x[there],
        np.maximum(low, 0.0),
        high,
        color=style.OTHERS,
        alpha=0.4,
        linewidth=0,
        label="isotropic, ± 2 sd",
    )
