"""The sizes of a comparison's effects at a glance: what each module shares, its control, and isotropic random spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.plots import style
from subspace.plots.canvas import fractions, new_figure
from subspace.plots.comparison_panels import SIDES, panel_of
from subspace.plots.control_panels import control_note, control_title, control_words
from subspace.plots.drawn_panels import Drawn, keep
from subspace.plots.isotropic_marks import NULL, isotropic_note
from subspace.plots.preset import Preset
from subspace.plots.presets._pages import on_page, page_count
from subspace.plots.presets._selection import Selection, selected

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.results.comparison import Comparison
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["PRESET"]

_PER_PAGE = 60
# inches
_STEP, _WIDTH, _GAP, _EDGE, _CHARACTER, _LINE, _TOP, _AXIS = 0.18, 2.2, 0.3, 0.12, 0.064, 0.13, 0.52, 0.48
_RATIO = (0.5, 20.0)  # the least that an axis of ratios shows
_MEASURED, _NO_CONTROL = "#0072b2", "none"
# per kind of control: colour and shape, which a black-and-white print keeps
_LOOK = {"same_input": ("#d55e00", "D"), "layers": ("#009e73", "s")}


class _Effect(NamedTuple):
    """One cell of one module: phi, its mean over the control (NaN without one) and over isotropic random spans."""

    row: ModuleComparison
    i: int
    j: int
    phi: float
    control: float
    isotropic: float


def _draw(comparison: Comparison, *, side: str, layer: int | None, relative: bool) -> list[Figure]:
    """Draw phi(1, 1) at the left and phi of the whole spans at the right, a line of marks per module."""
    chosen = selected(comparison, side)
    chosen = chosen if layer is None else chosen.at(layer)
    pages = page_count(len(chosen.rows), per_page=_PER_PAGE)
    return [_page(chosen, SIDES[side], n + 1, relative) for n in range(pages)]


def _page(chosen: Selection, side: str, page: int, relative: bool) -> Figure:
    rows, where = on_page(chosen.rows, page, _PER_PAGE, "modules")
    names = [chosen.paths[row.module] for row in rows]
    left, high = _EDGE + _CHARACTER * max(12, *map(len, names)), _STEP * len(rows)
    wide = left + 2 * _WIDTH + _GAP + _EDGE
    note = _note(where, rows, wide - 2 * _EDGE)
    below, above = _AXIS + _LINE * (1 + note.count("\n")), _TOP + _LINE * _legend_lines(rows)
    effects = [[_effect(row, whole=whole) for row in rows] for whole in (False, True)]
    limits = _limits([*effects[0], *effects[1]], relative)
    with style.paper_style():
        figure = new_figure(wide, below + high + above)
        for k, cell in enumerate(("φ(1, 1)", "φ of the whole spans")):
            ax = figure.add_axes(fractions(figure, left + k * (_WIDTH + _GAP), below, _WIDTH, high))
            _dots(ax, effects[k], relative)
            keep(ax, *_records(chosen, effects[k], limits, relative))
            _text(ax, f"{cell} of {side}", names if k == 0 else [], relative)
            _across(ax, limits, relative)
        _head(figure, " against ".join(chosen.names), _legend_lines(rows))
        _under(figure, note)
    return figure


def _note(where: str, rows: Sequence[ModuleComparison], inches: float) -> str:
    parts = [where, isotropic_note(), control_note(row.control_kind or "" for row in rows)]
    return style.fitted("; ".join(filter(None, parts)), inches=inches, size=style.NOTE_SIZE, lines=6)


def _legend_lines(rows: Sequence[ModuleComparison]) -> int:
    return 2 if len({row.control_kind for row in rows} & set(_LOOK)) > 1 else 1


def _effect(row: ModuleComparison, *, whole: bool) -> _Effect:
    i, j = row.phi.shape if whole else (1, 1)
    control = row.phi_full_control if whole else row.phi_control
    return _Effect(
        row, i, j, float(row.phi[i - 1, j - 1]), np.nan if control is None else control, max(i, j) / row.d
    )


def _limits(effects: Sequence[_Effect], relative: bool) -> tuple[float, float]:
    """Return the limits of both axes."""
    if not relative:
        return 0.0, 1.0
    ratios = [value / e.isotropic for e in effects for value in (e.phi, e.control) if value > 0]
    return min([_RATIO[0], *ratios]) / 1.3, max([_RATIO[1], *ratios]) * 1.3


def _dots(ax: Axes, effects: Sequence[_Effect], relative: bool) -> None:
    """Draw a mark per value and a line from what a module shares anyhow to what it shares."""
    y = np.arange(len(effects))
    phi, control, isotropic = np.array([[e.phi, e.control, e.isotropic] for e in effects]).T
    if relative:
        phi, control, isotropic = phi / isotropic, control / isotropic, np.ones_like(phi)
    ax.hlines(
        y, np.where(np.isnan(control), isotropic, control), phi, color=style.OTHERS, linewidth=1.0, zorder=1
    )
    ax.plot(isotropic, y, "|", color="black", markersize=8, markeredgewidth=1.2, label=NULL, zorder=2)
    kinds = np.array([e.row.control_kind or _NO_CONTROL for e in effects])
    for kind, (colour, marker) in _LOOK.items():
        its = kinds == kind
        if its.any():
            ax.plot(
                control[its], y[its], marker, color=colour, markerfacecolor="white", markersize=4.5, zorder=5,
                label=control_words(kind),
            )  # fmt: skip
    ax.plot(phi, y, "o", color=_MEASURED, markersize=5, label="measured", zorder=4)
    ax.set_ylim(len(effects) - 0.5, -0.5)


def _records(
    chosen: Selection, effects: Sequence[_Effect], limits: tuple[float, float], relative: bool
) -> Iterator[Drawn]:
    """Yield what each mark shows, as a panel of one cell."""
    for effect in effects:
        row, title = effect.row, chosen.paths[effect.row.module]
        whole = panel_of(row, title=title, names=chosen.names)
        one = replace(
            whole,
            phi=np.array([[effect.phi]]),
            i_start=effect.i,
            j_start=effect.j,
            r_first=None,
            r_second=None,
        )
        yield Drawn(one, *limits, None, relative)
        if row.control is not None and not np.isnan(effect.control):
            title = control_title(row.control["kind"], title, chosen.others[row.module])
            control = replace(
                one, phi=np.array([[effect.control]]), title=title, j_module=None, control=row.control
            )
            yield Drawn(control, *limits, None, relative)


def _text(ax: Axes, title: str, names: Sequence[str], relative: bool) -> None:
    ax.set_title(title, fontsize=style.TITLE_SIZE, pad=4)
    ax.set_xlabel(f"φ over {NULL}" if relative else "φ", fontsize=style.LABEL_SIZE, labelpad=2)
    ax.tick_params(labelsize=style.TICK_SIZE, length=2.5)
    ax.set_yticks(range(len(names)), names, parse_math=False, fontsize=style.TICK_SIZE)
    ax.grid(axis="x", color=style.MASKED, zorder=0)
    ax.set_axisbelow(True)
    ax.spines[:].set(linewidth=style.LINE_WIDTH)


def _across(ax: Axes, limits: tuple[float, float], relative: bool) -> None:
    if relative:
        ax.set_xscale("log", nonpositive="clip")
        ax.set_xlim(*limits)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
    else:
        ax.set_xlim(limits[0] - 0.03, limits[1] + 0.03)


def _head(figure: Figure, names: str, lines: int) -> None:
    """Write over the axes which adapters these are and what the marks mean."""
    width, height = figure.get_size_inches()
    text = style.fitted(names, inches=width - 2 * _EDGE, size=style.TITLE_SIZE, lines=1)
    figure.text(
        0.5, 1 - 0.06 / height, text, fontsize=style.TITLE_SIZE, ha="center", va="top", family=style.FONT,
        parse_math=False,
    )  # fmt: skip
    handles = {str(handle.get_label()): handle for ax in figure.axes for handle in ax.lines[::-1]}
    figure.legend(
        handles.values(), handles.keys(), fontsize=style.NOTE_SIZE, frameon=False, loc="upper center",
        bbox_to_anchor=(0.5, 1 - 0.2 / height), ncols=3 if lines == 1 else 2, columnspacing=1.2,
        handletextpad=0.3, borderpad=0.0,
    )  # fmt: skip


def _under(figure: Figure, note: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        _EDGE / width, 0.06 / height, note, fontsize=style.NOTE_SIZE, family=style.FONT, parse_math=False
    )


PRESET = Preset("effects", "What every module shares, next to its control and isotropic random spans.", _draw)
