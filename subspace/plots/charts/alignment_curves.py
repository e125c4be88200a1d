"""How much of delta_W lies in W's leading singular directions, by how many of them are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.errors import InconclusiveError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from subspace.results.alignment import Alignment, ModuleAlignment

__all__ = ["alignment_curves"]

_SIDES = (("input", style.CATEGORIES[0], "-"), ("output", style.CATEGORIES[1], (0, (5, 1.5))))
_POINTS = 80  # of a curve that is the median of several
_SLACK = 1e-9  # relative rounding of the ends of a range


def alignment_curves(result: Alignment, *, ax: Axes | None = None) -> Axes:
    """Draw the share of ``||delta_W||^2`` in W's leading singular vectors, on the input and the output side.

    The share is drawn over the share of all directions that are taken, i / d, which is what isotropic random updates
    have on average, whatever the shape of a module. Grey is two of their standard deviations either way, of the median
    module. Of several modules a line is the median and its band the quartiles; it ends where most have no value.

    Parameters
    ----------
    result : Alignment
        Its modules without shares are left out.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    InconclusiveError
        If no module has a share.
    """
    rows = [row for row in result.modules if row.input_share is not None]
    if not rows:
        raise InconclusiveError("There is no alignment to draw: every delta_W or base weight is zero")
    axes = axes_of(ax, width=4.4, height=3.2)
    curves = [(_curve(rows, side), side, colour, dashes) for side, colour, dashes in _SIDES]
    _chance(axes, max((curve for curve, *_ in curves), key=lambda each: float(np.nanmax(each.sd))))
    for curve, side, colour, dashes in curves:
        axes.plot(
            curve.x, curve.middle, linestyle=dashes, color=colour, linewidth=1.4, label=f"{side} side of W"
        )
        if len(rows) > 1:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    lowest = min(float(curve.x[0]) for curve, *_ in curves)
    axes.set_ylim(0.3 * lowest, 1.3)
    label_axes(axes, "share of W's directions taken, i / d, from the largest", "share of ‖ΔW‖² in their span")
    _legend(axes, len(rows))
    return axes


class _Curve(NamedTuple):
    x: NDArray[np.float64]
    middle: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sd: NDArray[np.float64]


def _curve(rows: Sequence[ModuleAlignment], side: str) -> _Curve:
    """Shares of one side by i / d; of several modules their median and quartiles, where half of them have a value."""
    each = [
        tuple(np.asarray(row.curves[f"{side}{part}"], dtype=float) for part in ("_isotropic", "", "_sd"))
        for row in rows
    ]
    if len(rows) == 1:
        x, share, sd = each[0]
        positive = np.where(share > 0, share, np.nan)
        return _Curve(x, positive, positive, positive, sd)
    x = np.geomspace(min(own[0] for own, _, _ in each), max(own[-1] for own, _, _ in each), _POINTS)
    shares = np.array([_between(x, own, share) for own, share, _ in each])
    spreads = np.array([_between(x, own, sd) for own, _, sd in each])
    common = np.isfinite(shares).sum(axis=0) * 2 >= len(rows)
    x, shares, spreads = x[common], shares[:, common], spreads[:, common]
    low, middle, high = np.nanpercentile(shares, (25, 50, 75), axis=0)
    return _Curve(x, np.where(middle > 0, middle, np.nan), low, high, np.nanmedian(spreads, axis=0))


def _between(
    x: NDArray[np.float64], own: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A module's values at x, on straight lines over log x, NaN outside its own range."""
    inside = (own[0] * (1 - _SLACK) <= x) & (x <= own[-1] * (1 + _SLACK))
    return np.where(inside, np.interp(np.log(x), np.log(own), values), np.nan)


def _chance(axes: Axes, curve: _Curve) -> None:
    low, high = np.maximum(curve.x - 2 * curve.sd, 1e-9), curve.x + 2 * curve.sd
    axes.fill_between(curve.x, low, high, color=style.OTHERS, alpha=0.25, linewidth=0)
    axes.plot(
        curve.x,
        curve.x,
        linestyle=":",
        color="#000000",
        linewidth=1.0,
        label="isotropic random updates, ± 2 sd",
    )


def _legend(axes: Axes, modules: int) -> None:
    title = f"median and quartiles of {counted(modules, 'module')}" if modules > 1 else None
    axes.legend(
        title=title, title_fontsize=style.NOTE_SIZE, fontsize=style.NOTE_SIZE, frameon=False, loc="upper left",
        alignment="left", borderpad=0.2, handlelength=2.6,
    )  # fmt: skip
