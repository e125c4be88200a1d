"""The tables and figures of the study of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from subspace.plots import style
from subspace.plots.canvas import new_figure
from subspace.study.papers.rank._advice import RULES
from subspace.study.papers.rank._measured import Difference, Measures, Sweep
from subspace.study.papers.rank._planned import RANKS, WHOLE
from subspace.study.study_figures import Picture
from subspace.study.study_tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["pictures", "tables"]

Row = dict[str, Any]
_MARKERS = "osD^v<>P"


def tables(measures: Measures) -> tuple[Table, ...]:
    """Return the losses by rank, what the rules advise, and the same by module."""
    return (_losses(measures), _advice(measures), _modules(measures))


def _difference(found: Difference) -> Row:
    return {"loss": found.loss, "difference": found.difference, "low": found.low, "high": found.high}


def _losses(measures: Measures) -> Table:
    def rows() -> Iterator[Row]:
        for rank, found in measures.native.items():
            yield {"adapter": "trained at this rank", "r": rank, **_difference(found), "kept": None}
        for name in (*WHOLE, "barely-r64"):
            sweep = measures.sweeps[name]
            for rank in RANKS:
                found = sweep.cut[rank]
                kept = sweep.kept(found.loss)
                yield {"adapter": f"{name}, cut", "r": rank, **_difference(found), "kept": kept}

    return Table(
        "losses",
        "Held-out loss by rank",
        f"In nats per token; the base alone has {measures.here.base:.3f}. Differences are from r = 64 as it was "
        "trained, with 95 % intervals of a paired bootstrap over windows; kept is the share of what r = 64 gains "
        "over the base.",
        tuple(rows()),
    )


def _advice(measures: Measures) -> Table:
    def rows() -> Iterator[Row]:
        for name in (*WHOLE, "barely-r64"):
            sweep = measures.sweeps[name]
            for rule, advised in sweep.advised.items():
                ranks = advised.ranks.values()
                yield {
                    "adapter": name,
                    "rule": rule,
                    "mean_r": advised.mean,
                    "least_r": min(ranks),
                    "most_r": max(ranks),
                    "without_answer": advised.unanswered,
                    **_difference(advised.cut),
                    "kept": sweep.kept(advised.cut.loss),
                    "enough": sweep.enough,
                    "no_difference": sweep.indistinguishable,
                }

    return Table(
        "advice",
        "What each rule advises, and what that rank loses",
        "Every module is cut to the rank that the rule gives it, and stays whole where the rule has no answer. "
        "Enough is the smallest measured rank from which no cut is surely worse than the whole by more than two "
        "seeds differ; no difference: from which none is surely worse at all.",
        tuple(rows()),
    )


def _modules(measures: Measures) -> Table:
    advised = measures.here.advised
    rows = tuple(
        {"module": module, **{rule: advised[rule].ranks[module] for rule in RULES}}
        for module in measures.spectra
    )
    return Table(
        "advised-ranks",
        "The advised rank of every module",
        "Of the first adapter of r = 64.",
        rows,
    )


def pictures(measures: Measures) -> Iterator[Picture]:
    """Yield the loss against rank with each rule marked, and the spectra that the rules see."""
    yield Picture(
        "loss",
        "loss",
        "Held-out loss against rank",
        "Trained at a rank, and r = 64 cut to it, with 95 % intervals of the difference from r = 64. Each rule "
        "stands at the mean rank that it advises and the loss that it then has; where a rule lies above the curve "
        "of the cut adapter, a rank that is the same for all modules is better.",
        _loss_figure(measures),
    )
    yield Picture(
        "spectra",
        "spectra",
        "The singular values that the rules see",
        "Of delta_W of every module of the first adapter of r = 64, over the largest.",
        _spectra_figure(measures),
    )


def _loss_figure(measures: Measures) -> Figure:
    with style.paper_style():
        figure = new_figure(6.4, 4.0)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        _curve(axes, measures.native, "trained at this rank", 0, "-o", measures.here)
        _curve(axes, measures.here.cut, "r = 64, cut", 1, "-s", measures.here)
        for n, (name, advised) in enumerate(measures.here.advised.items()):
            axes.plot(
                advised.mean,
                advised.cut.loss,
                linestyle="",
                marker=_MARKERS[n % len(_MARKERS)],
                markersize=7,
                markerfacecolor="none",
                markeredgewidth=1.3,
                color=style.CATEGORIES[2 + n % (len(style.CATEGORIES) - 2)],
                label=name,
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(RANKS, list(map(str, RANKS)))
        axes.tick_params(labelsize=style.TICK_SIZE)
        axes.set_xlabel("rank", fontsize=style.LABEL_SIZE)
        axes.set_ylabel("held-out loss, nats per token", fontsize=style.LABEL_SIZE)
        figure.legend(loc="outside lower center", ncols=4, fontsize=style.NOTE_SIZE, frameon=False)
    return figure


def _curve(axes: Axes, found: Any, label: str, colour: int, line: str, sweep: Sweep) -> None:
    ranks = sorted(found)
    losses = [found[rank].loss for rank in ranks]
    axes.plot(ranks, losses, line, color=style.CATEGORIES[colour], markersize=4, linewidth=1.2, label=label)
    band = [[sweep.whole + getattr(found[rank], end) for rank in ranks] for end in ("low", "high")]
    axes.fill_between(ranks, band[0], band[1], color=style.CATEGORIES[colour], alpha=0.15, linewidth=0)


def _spectra_figure(measures: Measures) -> Figure:
    with style.paper_style():
        figure = new_figure(5.6, 3.3)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        kinds = list(dict.fromkeys(module.rpartition(".")[2] for module in measures.spectra))
        for module, S in measures.spectra.items():
            kind = module.rpartition(".")[2]
            first = module == next(
                name for name in measures.spectra if name.endswith(f".{kind}") or name == kind
            )
            colour = style.CATEGORIES[kinds.index(kind) % len(style.CATEGORIES)]
            label = style.text(kind) if first else None
            axes.plot(range(1, len(S) + 1), S / S[0], color=colour, linewidth=1.0, label=label)
        axes.set_yscale("log")
        axes.tick_params(labelsize=style.TICK_SIZE)
        axes.set_xlabel("direction", fontsize=style.LABEL_SIZE)
        axes.set_ylabel("singular value over the largest", fontsize=style.LABEL_SIZE)
        axes.legend(fontsize=style.NOTE_SIZE, frameon=False)
    return figure
