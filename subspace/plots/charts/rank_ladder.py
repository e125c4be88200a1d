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

_NEAR = 0.1  # of the parameters: names of candidates that are nearer than this would overlap
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
    _percent(axes)
    axes.margins(x=0.08)
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.3 * (high - low), high + 0.06 * (high - low))  # room for names
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
    for names, x, y in _named(some, kept):
        turned = marker == "s"  # ranks stand above their points, names of rules hang below them
        axes.annotate(
            names, (x, y), xytext=(5, -2) if turned else (0, 5), textcoords="offset points", color=colour,
            fontsize=style.NOTE_SIZE - 1, rotation=90 if turned else 0, ha="left" if turned else "center",
            va="top" if turned else "bottom",
            parse_math=False,
        )  # fmt: skip


def _named(some: Sequence[Candidate], kept: Sequence[float]) -> list[tuple[str, float, float]]:
    """Names with their places; those of candidates of nearly one size are one."""
    found: list[tuple[str, float, float]] = []
    for each, y in zip(some, kept, strict=True):
        name = each.name.removeprefix("uniform ")
        if found and abs(found[-1][1] / each.parameters - 1) < _NEAR:
            first, _, above = found.pop()
            found.append((f"{first}, {name}", each.parameters, min(y, above)))
        else:
            found.append((name, each.parameters, y))
    return found


def _percent(axes: Axes) -> None:
    """A logarithmic axis in round percents."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    at = [n * 10.0**k for k in range(-6, 1) for n in (1, 2, 5) if n * 10.0**k <= 1]
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.4g} %")
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.4g} %")
