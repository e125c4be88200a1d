"""The figures of the study of intruder dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from subspace.plots import style
from subspace.plots.canvas import new_figure
from subspace.study.papers.intruders._findings import correlations
from subspace.study.papers.intruders._measured import Effect, Loss, Measures, Mitigation
from subspace.study.papers.intruders._planned import METHODS, method_of
from subspace.study.papers.intruders._spectra import EPSILONS
from subspace.study.study_figures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["pictures"]

_LABELS = {
    "r1": "LoRA r = 1",
    "r8": "LoRA r = 8",
    "r64": "LoRA r = 64",
    "r64-rs": "LoRA r = 64, rank-stabilised",
    "full": "full fine-tuning",
}
_COLOURS = dict(zip(METHODS, style.CATEGORIES, strict=False))
_MARKERS = dict(zip(METHODS, "os^Dv", strict=True))


def pictures(measures: Measures) -> Iterator[Picture]:
    """Yield the counts by learning rate and by threshold, forgetting against counts and norms, and the mitigation."""
    yield Picture(
        "by-rate",
        "by-rate",
        "Intruder dimensions by learning rate and rank",
        "Solid: intruders per matrix, of ten leading directions, at epsilon = 0.5. Dotted: of random updates with "
        "the same singular values, which is what size and rank alone make.",
        _figure(_by_rate, measures, panels=1),
    )
    yield Picture(
        "thresholds",
        "by-rate",
        "Intruder dimensions by the threshold epsilon",
        "At each method's learning rate of the lowest task loss. Dotted: random updates with the same singular values.",
        _figure(_by_threshold, measures, panels=1),
    )
    yield Picture(
        "forgetting",
        "forgetting",
        "Forgetting against intruder dimensions, and against the norm alone",
        "One point per run; hollow: random updates with the same singular values. rho is Spearman's rank "
        "correlation over the trained runs. Where the right panel orders the runs as well as the left one, the "
        "norm says as much.",
        _figure(_forgetting, measures, panels=2),
    )
    yield Picture(
        "mitigation",
        "mitigation",
        "The top intruder of every matrix scaled by lambda",
        "Change of the loss from the run as it was trained, with 95 % intervals; below 0 is better. Dotted: the whole "
        "update shrunk to the same norm.",
        _figure(_mitigation, measures, panels=2),
    )


def _figure(draw: Callable[..., None], measures: Measures, *, panels: int) -> Figure:
    with style.paper_style():
        figure = new_figure(7.0 if panels > 1 else 5.6, 3.3)
        figure.set_layout_engine("constrained")
        every = [figure.add_subplot(1, panels, n + 1) for n in range(panels)]
        for axes in every:
            axes.tick_params(labelsize=style.TICK_SIZE)
        draw(figure, *every, measures)
    return figure


def _labelled(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=style.LABEL_SIZE)
    axes.set_ylabel(y, fontsize=style.LABEL_SIZE)


def _line(name: str, *, random: bool = False) -> dict[str, Any]:
    if random:
        return {"color": _COLOURS[name], "linestyle": ":", "linewidth": 1.2}
    return {
        "color": _COLOURS[name],
        "marker": _MARKERS[name],
        "markersize": 4,
        "linewidth": 1.2,
        "label": _LABELS[name],
    }


def _legend(figure: Figure, axes: Axes, *more: tuple[Any, str]) -> None:
    """One legend under the panels, with what dotted or hollow means."""
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = [*handles, *(each for each, _ in more)], [*labels, *(label for _, label in more)]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, fontsize=style.NOTE_SIZE, frameon=False
    )


def _dotted(label: str) -> tuple[Any, str]:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.OTHERS, linestyle=":", linewidth=1.2), label


def _by_rate(figure: Figure, axes: Axes, measures: Measures) -> None:
    for name in METHODS:
        runs = measures.at(name)
        rates = [run.lr for run in runs]
        for effects, random in ((measures.trained, False), (measures.random, True)):
            counts = [effects[run.name].intruders() / len(effects[run.name].matrices) for run in runs]
            axes.plot(rates, counts, **_line(name, random=random))
    axes.set_xscale("log")
    axes.set_ylim(bottom=0.0)
    _labelled(axes, "peak learning rate", "intruders per matrix")
    _legend(figure, axes, _dotted("random updates"))


def _by_threshold(figure: Figure, axes: Axes, measures: Measures) -> None:
    for name in METHODS:
        run = measures.best(name)
        for effects, random in ((measures.trained, False), (measures.random, True)):
            effect: Effect = effects[run.name]
            counts = [effect.intruders(each) / len(effect.matrices) for each in EPSILONS]
            axes.plot(EPSILONS, counts, **_line(name, random=random))
    axes.set_ylim(bottom=0.0)
    _labelled(axes, "epsilon: largest cosine with W's directions", "directions per matrix below it")
    _legend(figure, axes, _dotted("random updates"))


def _forgetting(figure: Figure, left: Axes, right: Axes, measures: Measures) -> None:
    found = correlations(measures, measures.trained)
    named = (
        (left, "intruders", "intruders in all matrices", lambda effect: effect.intruders()),
        (right, "norm", "||delta_W|| / ||W||", lambda effect: effect.relative_norm),
    )
    for axes, key, label, value in named:
        for random, effects in ((True, measures.random), (False, measures.trained)):
            _points(axes, measures, effects, value, hollow=random)
        axes.set_title(f"rho = {found[key].rho:.2f}, p = {found[key].p:.2g}", fontsize=style.TITLE_SIZE)
        axes.set_yscale("symlog", linthresh=0.1)
        _labelled(axes, label, "")
    left.set_xscale("symlog", linthresh=1.0)
    left.set_xlim(left=-0.3)
    right.set_xscale("log")
    left.set_ylabel("forgetting, nats per token", fontsize=style.LABEL_SIZE)
    _legend(figure, left)


def _points(
    axes: Axes,
    measures: Measures,
    effects: Mapping[str, Effect],
    value: Callable[[Effect], float],
    *,
    hollow: bool,
) -> None:
    for name in METHODS:
        chosen = [
            effects[run.name] for run in measures.plan.runs if not run.barely and method_of(run) == name
        ]
        axes.plot(
            [value(each) for each in chosen],
            [each.forgetting for each in chosen],
            linestyle="",
            marker=_MARKERS[name],
            markersize=4.5,
            color=_COLOURS[name],
            markerfacecolor="none" if hollow else _COLOURS[name],
            alpha=0.5 if hollow else 1.0,
            label=None if hollow else _LABELS[name],
        )


def _mitigation(figure: Figure, left: Axes, right: Axes, measures: Measures) -> None:
    for name, each in measures.mitigated.items():
        method = method_of(measures.plan.run(name))
        for axes, place in ((left, 1), (right, 0)):
            _swept(axes, method, each, place)
    for axes, what in ((left, "text of pre-training"), (right, "task")):
        axes.axhline(0.0, color=style.OTHERS, linewidth=style.LINE_WIDTH)
        axes.invert_xaxis()
        axes.set_title(what, fontsize=style.TITLE_SIZE)
        _labelled(axes, "lambda", "")
    left.set_ylabel("change of the loss, nats per token", fontsize=style.LABEL_SIZE)
    _legend(figure, left, _dotted("whole update shrunk"))


def _swept(axes: Axes, method: str, each: Mitigation, place: int) -> None:
    for losses, random in ((each.weakened, False), (each.shrunk, True)):
        found: list[tuple[float, Loss]] = [(1.0, Loss(0.0, 0.0, 0.0, 0.0))]
        found += [(by, pair[place]) for by, pair in losses.items()]
        x, y = [by for by, _ in found], [loss.difference for _, loss in found]
        axes.plot(x, y, **_line(method, random=random))
        if not random:
            band = [loss.low for _, loss in found], [loss.high for _, loss in found]
            axes.fill_between(x, band[0], band[1], color=_COLOURS[method], alpha=0.15, linewidth=0)
