"""How much of every module's leading direction lies in its mean input, or elsewhere, by layer."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.naming.same_input import place_of
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from subspace.results.explanation import DirectionExplanation, Explanation

__all__ = ["explained_shares"]

_SHARES = {
    "mean": "share of v1 in the mean input",
    "input": "share of v1 in the leading {m} directions of the inputs",
    "W": "share of v1 in the leading {m} right singular vectors of W",
    "gradient": "share of v1 in the leading {m} directions of the gradient",
}
_LOWEST = 1e-4  # share below which a point stands at the edge
_MARKERS = "osD^vPX"


class _Point(NamedTuple):
    layer: int
    share: float
    isotropic: float


def explained_shares(result: Explanation, *, share: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw one share of the leading direction of every module over its layer, a line for each kind of module.

    The dotted lines are the same share of isotropic random directions, one for each dimension of inputs.

    Parameters
    ----------
    result : Explanation
        Its modules without that share are left out.
    share : {"mean", "input", "W", "gradient"}, optional
        What the direction is compared with. None: the first of these that is known.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    ValueRangeError
        If there is no such share.
    InconclusiveError
        If no module has it.
    """
    from matplotlib.ticker import MaxNLocator

    rows = [row for row in result.modules if row.k == 1]
    if share is not None and share not in _SHARES:
        raise ValueRangeError(f"Unknown share {shown(repr(share))}: `share` is one of {', '.join(_SHARES)}")
    name = share or next((each for each in _SHARES if _having(rows, each)), "mean")
    having = _having(rows, name)
    if not having:
        raise InconclusiveError(
            "There is no share to draw: give `inputs` or `base`, so that directions are compared with something"
        )
    axes = axes_of(ax, width=5.4, height=3.2)
    for n, (kind, points) in enumerate(_by_kind(having, name).items()):
        x = [each.layer for each in points]
        y = [max(each.share, _LOWEST) for each in points]
        colour = style.CATEGORIES[n % len(style.CATEGORIES)]
        axes.plot(
            x, y, marker=_MARKERS[n % len(_MARKERS)], color=colour, linewidth=1.2, markersize=4,
            label=style.text(kind, longest=40),
        )  # fmt: skip
    for n, level in enumerate(sorted({getattr(row, f"{name}_isotropic") for row in having})):
        label = "isotropic random directions" if n == 0 else None
        axes.axhline(level, color="#000000", linestyle=":", linewidth=1.0, label=label)
    axes.set_yscale("log")
    axes.set_ylim(top=1.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    m = getattr(having[0], f"{name}_leading", None)
    label_axes(axes, "layer", _SHARES[name].format(m=m))
    axes.legend(fontsize=style.NOTE_SIZE, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


def _having(rows: Sequence[DirectionExplanation], name: str) -> list[DirectionExplanation]:
    return [row for row in rows if getattr(row, f"{name}_share") is not None]


def _by_kind(rows: Sequence[DirectionExplanation], name: str) -> dict[str, list[_Point]]:
    """Last part of the modules' names -> their points by layer; a module without a number stands at 0."""
    kinds: dict[str, list[_Point]] = defaultdict(list)
    for row in rows:
        where = place_of(row.module)
        kind = ".".join(where.kind.rsplit(".", 2)[-2:])
        layer = where.layer[0] if where.layer else 0
        kinds[kind].append(_Point(layer, getattr(row, f"{name}_share"), getattr(row, f"{name}_isotropic")))
    return {kind: sorted(points) for kind, points in kinds.items()}
