"""Table 7 of the LoRA paper as points: how much of W lies in which directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.plots.isotropic_marks import NULL
from subspace.plots.module_titles import endings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from subspace.results.amplification import Amplification, RankAmplification

__all__ = ["projections"]

_NAMED = 96  # so many modules have room for their names
_COLOURS = {"W": "#f2b07b", "delta_W": "#c63f59", "random": "#3b1f4e"}


def projections(result: Amplification, *, ax: Axes | None = None) -> Axes:
    """Draw table 7 at each module's largest rank: ``||U^T W V||_F`` of W's own, of delta_W's and of random directions.

    A bar at a random value is two standard deviations of it either way.

    Parameters
    ----------
    result : Amplification
        Its modules without a direction are left out.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    InconclusiveError
        If no module has a direction.
    """
    rows = [module for module in result.modules if module.ranks]
    if not rows:
        raise InconclusiveError("There are no projections to draw: every delta_W is zero (untrained)")
    names = endings([row.module for row in rows])
    height = 2.9 + (0.06 * max(map(len, names)) if len(rows) <= _NAMED else 0.0)
    axes = axes_of(ax, width=max(4.6, 1.2 + 0.14 * min(len(rows), _NAMED)), height=height)
    _points(axes, [module.ranks[-1] for module in rows])
    axes.set_yscale("log")
    label_axes(axes, "module", "‖Uᵀ W V‖, Frobenius norm")
    _name_modules(axes, names)
    axes.legend(
        fontsize=style.NOTE_SIZE, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0),
        ncols=3, borderpad=0.2, columnspacing=1.2, handletextpad=0.3,
    )  # fmt: skip
    return axes


def _points(axes: Axes, ranks: Sequence[RankAmplification]) -> None:
    x = np.arange(len(ranks))
    of_delta_W = [np.nan if rank.proj_delta_W is None else rank.proj_delta_W for rank in ranks]
    random, spread = np.array([[rank.proj_random, 2 * rank.proj_random_sd] for rank in ranks]).T
    below = np.minimum(spread, 0.9 * random)  # a bar to zero has no end on a logarithmic axis
    axes.plot(
        x, [rank.proj_W for rank in ranks], "^", markersize=4, color=_COLOURS["W"], label="W's own directions"
    )
    axes.plot(x, of_delta_W, "o", markersize=4, color=_COLOURS["delta_W"], label="delta_W's directions")
    axes.errorbar(
        x, random, np.array([below, spread]), fmt="_", color=_COLOURS["random"], label=NULL, linewidth=0.8
    )


def _name_modules(axes: Axes, names: Sequence[str]) -> None:
    """Names under their modules while there is room, otherwise their numbers, and what these are."""
    if len(names) <= _NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    else:
        axes.set_xlabel(
            f"modules 0 to {len(names) - 1}, in the order of the table", fontsize=style.LABEL_SIZE
        )
