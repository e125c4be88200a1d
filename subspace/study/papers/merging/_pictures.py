"""The figures of the study of merging: what was measured, errors, and calibration of every predictor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.plots import style
from subspace.plots.canvas import new_figure
from subspace.study.papers.merging._judged import Judged, Outcome
from subspace.study.papers.merging._measured import Measures
from subspace.study.papers.merging._predictors import NORMS, PREDICTORS
from subspace.study.study_figures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.geometry.lapack import Floats

__all__ = ["pictures"]

_TITLES = {"harm": "Harm", "transfer": "Transfer"}
_COLUMNS = 4
_OWN = len(style.CATEGORIES)


def pictures(measures: Measures, outcomes: Mapping[str, Outcome]) -> Iterator[Picture]:
    """Yield what was measured, the errors, and predicted against measured of both outcomes."""
    yield Picture(
        "measured",
        "measured",
        "What merging does, and what one adapter does for another task",
        "Left: rise of the loss of the task in the row when its adapter is added to that of the column, as a share of "
        "what its own had gained. Right: share of that gain that the adapter of the column alone reaches.",
        _matrices(measures, outcomes),
    )
    yield Picture(
        "errors",
        "errors",
        "Error of each predictor for a task left out",
        "Mean absolute error, in shares of what a task's own adapter gains. Solid line: no predictor, the mean of the "
        "other tasks. Dashed: the norms alone. A bar that reaches a line is no better. Filled bars: the rank "
        "correlation is significant.",
        _errors(outcomes),
    )
    for name, outcome in outcomes.items():
        yield Picture(
            f"calibration-{name}",
            name,
            f"{_TITLES[name]}: predicted against measured, for a task left out",
            "Each point is a task in a sum; its prediction comes from a monotone fit to the pairs without this task. "
            "On the line the prediction is right; points in one column are those of a predictor that knows nothing."
            + (
                " Hollow: sums of three, by the same fits; what lies beyond the pairs stands on the edge."
                if name == "harm"
                else ""
            ),
            _calibration(measures, outcome),
        )


def _matrices(measures: Measures, outcomes: Mapping[str, Outcome]) -> Figure:
    tasks = [style.text(task, longest=14) for task in measures.plan.tasks]
    with style.paper_style():
        figure = new_figure(7.4, 3.6)
        figure.set_layout_engine("constrained")
        for n, (name, outcome) in enumerate(outcomes.items()):
            axes = figure.add_subplot(1, len(outcomes), n + 1)
            values = np.mean(outcome.values, axis=0)
            image = axes.imshow(np.clip(values, *_RANGE[name]), cmap=style.colours(), aspect="equal")
            axes.set_facecolor(style.MASKED)
            axes.set_xticks(range(len(tasks)), tasks, rotation=90, fontsize=style.TICK_SIZE)
            axes.set_yticks(range(len(tasks)), tasks if not n else [], fontsize=style.TICK_SIZE)
            axes.set_title(_TITLES[name], fontsize=style.TITLE_SIZE)
            bar = figure.colorbar(image, ax=axes, shrink=0.8)
            bar.ax.tick_params(labelsize=style.TICK_SIZE)
            for (i, j), value in np.ndenumerate(values):
                if np.isfinite(value):
                    low, high = image.get_clim()
                    light = high > low and (np.clip(value, low, high) - low) / (high - low) > 0.55
                    colour = "#000000" if light else "#ffffff"
                    axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=5.5, color=colour)
    return figure


_RANGE = {"harm": (-1.0, 3.0), "transfer": (-2.0, 1.0)}  # what is beyond has the colour of the end


def _errors(outcomes: Mapping[str, Outcome]) -> Figure:
    with style.paper_style():
        figure = new_figure(7.4, 3.0)
        figure.set_layout_engine("constrained")
        labels = [predictor.label for predictor in PREDICTORS.values()]
        for n, (name, outcome) in enumerate(outcomes.items()):
            axes = figure.add_subplot(1, len(outcomes), n + 1)
            errors = [outcome.by[each].found.error for each in PREDICTORS]
            fills = ["none" if _fails(outcome.by[each]) else style.CATEGORIES[0] for each in PREDICTORS]
            axes.barh(range(len(labels)), errors, color=fills, edgecolor=style.CATEGORIES[0], height=0.65)
            axes.axvline(outcome.nothing.error, color=style.NOTE_COLOUR, linewidth=1.0)
            axes.axvline(
                outcome.by[NORMS].found.error, color=style.CATEGORIES[1], linewidth=1.0, linestyle="--"
            )
            axes.set_yticks(range(len(labels)), labels if not n else [], fontsize=style.TICK_SIZE)
            axes.invert_yaxis()
            axes.tick_params(axis="x", labelsize=style.TICK_SIZE)
            axes.set_title(_TITLES[name], fontsize=style.TITLE_SIZE)
            axes.set_xlabel("error, share of the gain", fontsize=style.LABEL_SIZE)
    return figure


def _fails(own: Judged) -> bool:
    return not own.found.p <= 0.05


def _calibration(measures: Measures, outcome: Outcome) -> Figure:
    rows = -(-len(PREDICTORS) // _COLUMNS)
    with style.paper_style():
        figure = new_figure(7.4, 1.85 * rows + 0.5)
        figure.set_layout_engine("constrained")
        low, high = _limits(outcome.values)
        for n, (name, predictor) in enumerate(PREDICTORS.items()):
            axes = figure.add_subplot(rows, _COLUMNS, n + 1)
            own = outcome.by[name]
            axes.plot([low, high], [low, high], color=style.OTHERS, linewidth=0.8, zorder=0)
            _points(axes, measures, own, outcome.values, (low, high))
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
            axes.set_aspect("equal")
            axes.tick_params(labelsize=style.TICK_SIZE)
            note = f"rho {own.found.spearman:+.2f}, error {own.found.error:.2f}"
            axes.set_title(f"{predictor.label}\n{note}", fontsize=style.TITLE_SIZE)
            if n % _COLUMNS == 0:
                axes.set_ylabel("measured", fontsize=style.LABEL_SIZE)
            if n >= len(PREDICTORS) - _COLUMNS:
                axes.set_xlabel("predicted", fontsize=style.LABEL_SIZE)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=8, fontsize=style.NOTE_SIZE, frameon=False
        )
    return figure


def _limits(values: Floats) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(each) for each in np.quantile(known, [0.02, 0.98]))
    room = 0.08 * (high - low) or 0.5
    return low - room, high + room


def _points(axes: Axes, measures: Measures, own: Judged, values: Floats, limits: tuple[float, float]) -> None:
    """What lies outside the axes stands on their edge."""
    for task, label in enumerate(measures.plan.tasks):
        colour, marker = style.CATEGORIES[task % _OWN], "os^D"[task // _OWN]
        look: dict[str, Any] = {"linestyle": "", "marker": marker, "markersize": 3, "color": colour}
        predicted, measured = (
            np.clip(each[:, task].ravel(), *limits) for each in (own.found.predicted, values)
        )
        axes.plot(predicted, measured, label=style.text(label, longest=14), **look)
        if own.triples is not None:
            mine = np.array([sample.task == task for sample in measures.triples()], dtype=bool)
            predicted, measured = (
                np.clip(each[mine], *limits) for each in (own.triples.predicted, own.triples.measured)
            )
            axes.plot(predicted, measured, markerfacecolor="none", markeredgewidth=0.6, **look)
