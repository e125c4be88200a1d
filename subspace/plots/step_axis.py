"""Where the checkpoints of a run stand on an axis, and what they are called there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subspace.results.trajectory import Run

__all__ = ["name_steps", "step_positions"]

_SPREAD = 50.0  # of the steps, above which they are drawn evenly


def step_positions(run: Run) -> np.ndarray:
    """Positions of the checkpoints: their steps, or 0, 1, 2, ... where one has none or they are too uneven to see."""
    steps = [each.step for each in run.checkpoints]
    if any(step is None for step in steps):
        return np.arange(len(steps), dtype=float)
    positions = np.array(steps, dtype=float)
    gaps = np.diff(positions)
    uneven = len(gaps) > 1 and (gaps.min() <= 0 or gaps.max() > _SPREAD * gaps.min())
    return np.arange(len(steps), dtype=float) if uneven else positions


def name_steps(axes: Axes, run: Run, x: np.ndarray, *, at_most: int = 9) -> None:
    """Name the checkpoints on the horizontal axis, some of them where there are many."""
    names = ["end" if each.step is None else f"{each.step:,}" for each in run.checkpoints]
    chosen = np.arange(len(names))[:: -(-len(names) // at_most)]
    if chosen[-1] != len(names) - 1:
        chosen = np.append(chosen[:-1], len(names) - 1)
    if not np.array_equal(x, np.arange(len(names))):  # steps: no two names that touch
        room = 0.11 * (x[-1] - x[0])
        kept: list[int] = []
        for n in chosen[::-1]:
            if not kept or x[kept[-1]] - x[n] >= room:
                kept.append(n)
        chosen = np.array(kept[::-1])
    axes.set_xticks(x[chosen], [names[n] for n in chosen], fontsize=style.TICK_SIZE)
