"""What the figures of base weights against an adapter share: W on the i axis, and the colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.plots.drawn_panels import isotropic_range
from subspace.plots.presets._selection import Selection, selected

if TYPE_CHECKING:
    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison

__all__ = ["colour_limits", "with_base_first", "without_top"]

# The paper's i axis starts here: the top few hundred directions of a large W say little
_START = 451
_BASE = "base weights"
_RATIO = (0.25, 4.0)  # what is above and below twice differs little here


def without_top(panel: Panel) -> Panel:
    """Return a panel from i = 451 on, if it reaches past twice that."""
    if panel.i_start < _START and panel.last_i > 2 * _START:
        return panel.cropped(i=(_START, panel.last_i))
    return panel


def colour_limits(panels: Sequence[Panel], *, relative: bool) -> tuple[float, float]:
    """Return the limits of the colours of some panels; see `figure_8`."""
    if relative:
        return _RATIO
    level = max(isotropic_range(panel)[1] for panel in panels)
    return (level, 2 * level) if level <= 0.5 else (0.5, 1.0)


def with_base_first(comparison: Comparison, side: str) -> Selection:
    """Return all modules of one side with W's directions on the i axis, whichever way round the two were given.

    Raises
    ------
    ValueRangeError
        If neither of the two is base weights.
    """
    chosen = selected(comparison, side)
    if not all(Flag.BASE in row.flags for row in chosen.rows):
        raise ValueRangeError(
            "Figure 8 needs base weights on one side, and both are adapters; give the base weights as the first"
        )
    return chosen.exchanged() if comparison.second.format == _BASE else chosen
