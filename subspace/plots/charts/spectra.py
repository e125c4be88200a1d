"""Singular values of every module of an adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError
from subspace.plots import style
from subspace.plots.charts._axes import axes_of, label_axes
from subspace.plots.module_titles import endings, kind_of
from subspace.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subspace.results.inspection import Inspection, ModuleInspection

__all__ = ["spectra"]

_MOST = len(style.CATEGORIES)  # so many colours can be told apart
_OTHERS = "other modules"


def spectra(found: Inspection, *, ax: Axes | None = None) -> Axes:
    """Draw the singular values of every module's delta_W over its largest, on a logarithmic axis; return the axes.

    Up to seven modules have a colour each; of more, every kind of module has one.

    Parameters
    ----------
    found : Inspection
        Its modules without a direction are left out, and the legend says how many they are.
    ax : matplotlib Axes, optional
        Where to draw. None: on a figure of its own, made without pyplot; a notebook displays it.

    Raises
    ------
    InconclusiveError
        If no module has a direction.
    """
    rows = [row for row in found.modules if row.S.size]
    if not rows:
        raise InconclusiveError("There is no spectrum to draw: every delta_W is zero (untrained)")
    groups = _groups([row.module for row in rows])
    labels = [label for label, _ in Counter(groups).most_common()]
    axes = axes_of(ax, width=4.4 + 0.06 * max(map(len, labels)), height=2.9)
    colours = dict(zip([label for label in labels if label != _OTHERS], style.CATEGORIES, strict=False))
    for row, group in zip(rows, groups, strict=True):
        _line(axes, row, colours.get(group, style.OTHERS))
    axes.set_yscale("log")
    axes.set_xticks(style.ticks(1, max(row.S.size for row in rows), at_most=10))
    label_axes(axes, "direction", "singular value over the largest")
    _legend(axes, colours, groups, left_out=len(found.modules) - len(rows), outside=ax is None)
    return axes


def _line(axes: Axes, row: ModuleInspection, colour: str) -> None:
    k = np.arange(1, row.S.size + 1)
    marker = "." if k.size < 3 else None
    axes.plot(k, row.S / row.S[0], color=colour, linewidth=0.8, marker=marker, label=f"_{row.module}")


def _groups(modules: Sequence[str]) -> list[str]:
    """Return the group of every module: itself if they are few, else its kind, else the last part of its kind."""
    if len(modules) <= _MOST:
        return endings(modules)
    kinds = [kind_of(module) for module in modules]
    each = list(dict.fromkeys(kinds))
    groups = [dict(zip(each, endings(each), strict=True))[kind] for kind in kinds]
    if len(each) > _MOST:
        groups = [style.text(kind.rpartition(".")[2], longest=60) for kind in kinds]
    common = Counter(groups).most_common()
    kept = {group for group, _ in (common if len(common) <= _MOST else common[: _MOST - 1])}
    return [group if group in kept else _OTHERS for group in groups]


def _legend(
    axes: Axes, colours: dict[str, str], groups: Sequence[str], *, left_out: int, outside: bool
) -> None:
    """Name the groups, with how many modules each has, under how many are drawn in all."""
    from matplotlib.lines import Line2D

    counts = Counter(groups)
    alone = len(counts) == len(groups)
    shown = {**colours, **({_OTHERS: style.OTHERS} if _OTHERS in counts else {})}
    legend = axes.legend(
        [Line2D([], [], color=colour, linewidth=1.6) for colour in shown.values()],
        [group if alone else f"{group} ({counts[group]})" for group in shown],
        title=counted(len(groups), "module")
        + ("" if alone else ", by kind")
        + (f"; {left_out} untrained left out" if left_out else ""),
        title_fontsize=style.NOTE_SIZE, fontsize=style.NOTE_SIZE, frameon=False, alignment="left",
        **({"loc": "upper left", "bbox_to_anchor": (1.0, 1.02)} if outside else {"loc": "best"}),
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
