"""The tables of the study of merging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from subspace.study.papers.merging._findings import reliabilities
from subspace.study.papers.merging._judged import Outcome
from subspace.study.papers.merging._measured import Measures
from subspace.study.papers.merging._predictors import NORMS, PREDICTORS
from subspace.study.study_tables import Table

__all__ = ["tables"]

Row = dict[str, Any]


def tables(measures: Measures, outcomes: Mapping[str, Outcome]) -> tuple[Table, ...]:
    """Return how every predictor does, and every merge with the numbers before it."""
    return (_predictors(outcomes), _merges(measures))


def _predictors(outcomes: Mapping[str, Outcome]) -> Table:
    rows = [
        {
            "outcome": each["outcome"],
            "predictor": each["label"],
            "verdict": each["verdict"],
            **{name: each[name] for name in _NUMBERS},
        }
        for each in reliabilities(outcomes)
    ]
    return Table(
        "predictors",
        "How well each predictor foretells",
        "Rank correlations over ordered pairs of tasks, p by permuting the tasks; within: mean over tasks of the "
        "Spearman correlation over the tasks that it is merged with. Errors are mean absolute ones for a task left "
        "out, in shares of what a task's own adapter gains: of a monotone fit, of a straight line, of no predictor "
        "(the mean of the other tasks) and of the norm ratio alone. Triples: sums of three, by the fits to pairs.",
        tuple(rows),
    )


_NUMBERS = (
    "spearman",
    "kendall",
    "p",
    "within",
    "error",
    "error_linear",
    "error_nothing",
    "error_norms",
    "error_triples",
)


def _merges(measures: Measures) -> Table:
    def rows() -> Iterator[Row]:
        names = measures.plan.tasks
        for sample in measures.samples:
            met = measures.meetings[sample.copy]
            yield {
                "task": names[sample.task],
                "merged_with": " + ".join(names[n] for n in sample.others),
                "copy": sample.copy,
                "loss_base": sample.base,
                "loss_own": sample.own,
                "loss_merged": sample.merged,
                "loss_other_alone": sample.other,
                "harm": sample.harm,
                "transfer": sample.transfer,
                **{name: PREDICTORS[name].value(met, sample) for name in (NORMS, *_SHOWN)},
            }

    return Table(
        "merges",
        "Every merge, task by task",
        "Losses on the held-out part of the task's text, in nats per token. Harm is the rise of the loss by merging "
        "and transfer what the other adapter alone gains, both as shares of what the task's own adapter gains. Then "
        "the numbers before the merge.",
        tuple(rows()),
    )


_SHOWN = tuple(name for name in PREDICTORS if name != NORMS)
