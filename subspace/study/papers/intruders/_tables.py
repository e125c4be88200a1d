"""The tables of the study of intruder dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from subspace.geometry.rank_correlation import RankCorrelation
from subspace.study.papers.intruders._findings import correlations
from subspace.study.papers.intruders._measured import Loss, Measures
from subspace.study.papers.intruders._planned import method_of
from subspace.study.papers.intruders._spectra import EPSILONS
from subspace.study.study_tables import Table

__all__ = ["tables"]

Row = dict[str, Any]


def tables(measures: Measures) -> tuple[Table, ...]:
    """Return what each run shows, the thresholds, the correlations with forgetting and the mitigation."""
    return (_intruders(measures), _thresholds(measures), _correlations(measures), _mitigation(measures))


def _intruders(measures: Measures) -> Table:
    return Table(
        "intruders",
        "Intruder dimensions, task and forgetting of every run",
        "Intruders among the ten leading left singular vectors of each W + delta_W: those whose cosine with every left "
        "singular vector of W is below 0.5. Random: an update with the same singular values and random directions. "
        "Losses in nats per token; task: below 0 is better than the base; forgetting: rise of the loss on the text of "
        "pre-training. Intervals are 95 %, of a paired bootstrap over windows.",
        tuple(_run_row(measures, run) for run in measures.plan.runs),
    )


def _run_row(measures: Measures, run: Any) -> Row:
    trained, random = measures.trained[run.name], measures.random[run.name]
    return {
        "run": run.name,
        "method": method_of(run),
        "lr": run.lr,
        "scale": measures.plan.scale(run),
        "matrices": len(trained.matrices),
        "intruders": trained.intruders(),
        "intruders_random": random.intruders(),
        "matrices_with_any": sum(each.top_intruder() is not None for each in trained.matrices),
        "norm_over_W": trained.relative_norm,
        "outgrown": trained.outgrown,
        **_loss("task", trained.task),
        **_loss("forgetting", trained.pretraining),
        "forgetting_random": random.forgetting,
    }


def _loss(name: str, loss: Loss) -> Row:
    return {name: loss.difference, f"{name}_low": loss.low, f"{name}_high": loss.high}


def _thresholds(measures: Measures) -> Table:
    def rows() -> Iterator[Row]:
        for run in measures.plan.runs:
            for kind, effects in (("trained", measures.trained), ("random", measures.random)):
                counts = {f"below_{each:g}": effects[run.name].intruders(each) for each in EPSILONS}
                yield {"run": run.name, "update": kind, **counts}

    return Table(
        "thresholds",
        "Intruder dimensions by the threshold epsilon",
        "How many of the leading directions have every cosine below epsilon. Compare a run with the random update "
        "of its singular values.",
        tuple(rows()),
    )


def _correlations(measures: Measures) -> Table:
    def rows() -> Iterator[Row]:
        for kind, effects in (("trained", measures.trained), ("random", measures.random)):
            for name, found in correlations(measures, effects).items():
                yield _correlation_row(kind, name, found)

    return Table(
        "correlations",
        "What orders the runs by forgetting",
        "Spearman's rank correlation with forgetting over all runs that are not barely trained, and its two-sided "
        "p-value by permutation: of the number of intruders, of the norm of delta_W over that of W alone, and of "
        "the number of intruders once the ranks of the norm are regressed out of both.",
        tuple(rows()),
    )


def _correlation_row(kind: str, name: str, found: RankCorrelation) -> Row:
    return {"updates": kind, "with_forgetting": name.replace("_", " "), **found._asdict()}


def _mitigation(measures: Measures) -> Table:
    def rows() -> Iterator[Row]:
        for name, each in measures.mitigated.items():
            for kind, losses in (("top intruder", each.weakened), ("whole update", each.shrunk)):
                for by, (task, text) in losses.items():
                    change = {"run": name, "scaled": kind, "lambda": by, "matrices_with_any": each.matrices}
                    yield {**change, **_loss("task", task), **_loss("forgetting", text)}

    return Table(
        "mitigation",
        "Mitigation: the top intruder of every matrix scaled by lambda",
        "Losses minus those of the run as it was trained (lambda = 1), in nats per token: below 0 is better. Whole "
        "update: every matrix's delta_W shrunk to the norm that it has once its top intruder is scaled.",
        tuple(rows()),
    )
