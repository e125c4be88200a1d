"""Ranks that were tested: how much of the adapter's gain is left at how many of its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.errors import InconclusiveError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from subspace.results.spectrum import Spectrum
    from subspace.results.tested_ranks import Candidate, MeasuredRanks

__all__ = ["rank_ladder"]

_UNIFORM, _RULE, _ADVISED = style.CATEGORIES[0], style.CATEGORIES[1], style.CATEGORIES[2]


def rank_ladder(found: Spectrum, *, ax: Axes | None = None) -> Axes:
    """Draw the share of the gain in loss that each candidate keeps over its share of the parameters; return the axes.

    A bar goes down to the simultaneous lower limit; candidates whose bar stays above the line are enough.

    Parameters
    ----------
    found : Spectrum
        Of an adapter whose ranks were tested.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    InconclusiveError
        If no ranks were tested, or the adapter makes no clear difference to the loss.
    """
    tested = found.evaluated
    if tested is None or tested.advised is None:
        raise InconclusiveError(
            "There is no ladder to draw: no ranks were tested; give `data`"
            if tested is None
            else "There is no ladder to draw: the adapter makes no clear difference to the loss"
        )
    axes = axes_of(ax, width=5.4, height=3.4)
    rules = [each for each in tested.candidates if not each.name.startswith("uniform")]
    uniform = [each for each in tested.candidates if each not in rules]
    _points(axes, uniform, tested, _UNIFORM, "o", "same rank everywhere")
    _points(axes, rules, tested, _RULE, "s", "rank of a rule, per module")
    axes.axhline(
        1 - tested.share, color=style.NOTE_COLOUR, linewidth=0.8, linestyle="--", label="gain to be kept"
    )
    best = tested.chosen()
    if best is not None and best.kept is not None:
        axes.plot(
            [best.parameters], [best.kept], "o", markersize=11, markerfacecolor="none",
            markeredgecolor=_ADVISED, markeredgewidth=1.4, label="advised", linestyle="none",
        )  # fmt: skip
    axes.set_xscale("log")
    label_axes(axes, "share of the parameters", "share of the gain in loss that is kept")
    axes.legend(fontsize=style.NOTE_SIZE, frameon=False, loc="lower right")
    return axes


def _points(
    axes: Axes, some: Sequence[Candidate], tested: MeasuredRanks, colour: str, marker: str, label: str
) -> None:
    kept = [each.kept or 0.0 for each in some]
    below = [
        0.0 if each.upper is None else max(0.0, (each.upper - each.difference) / tested.gain) for each in some
    ]
    axes.errorbar(
        [each.parameters for each in some], kept, [below, [0.0] * len(some)], fmt=marker, markersize=4,
        color=colour, elinewidth=0.8, label=label,
    )  # fmt: skip
    for each, y in zip(some, kept, strict=True):
        # names alternate in height by their side: those of rules above, ranks below
        up = marker == "s"
        axes.annotate(
            each.name.removeprefix("uniform "), (each.parameters, y), xytext=(3, 5 if up else -9),
            textcoords="offset points", fontsize=style.NOTE_SIZE - 1, color=colour, rotation=30 if up else 0,
            parse_math=False,
        )  # fmt: skip
