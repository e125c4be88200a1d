"""How well predictors foretell what merging does to each task's loss, and what one task's adapter does for another.

References
----------
Ilharco et al., arXiv 2212.04089 (sums of updates); the predictors' own are in `_predictors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.study.paper import Outcome, Paper
from subspace.study.papers.merging._planned import plan_for
from subspace.study.tuned_plan import run_entry, run_row

if TYPE_CHECKING:
    from subspace.study.papers.merging._planned import MergingPlan
    from subspace.study.study import Study

__all__ = ["PAPER"]


def _outcome(plan: MergingPlan, folder: Path, progress: Callable[[int, int], None] | None) -> Outcome:
    from subspace.study.papers.merging._findings import findings, reliabilities
    from subspace.study.papers.merging._judged import judged_all
    from subspace.study.papers.merging._measured import measured
    from subspace.study.papers.merging._pictures import pictures
    from subspace.study.papers.merging._tables import tables
    from subspace.study.study_folder import run_record

    measures = measured(plan, folder, progress=progress)
    outcomes = judged_all(measures)
    return Outcome(
        measures,
        findings(outcomes),
        tables(measures, outcomes),
        tuple(pictures(measures, outcomes)),
        tuple(run_entry(plan, run, run_record(folder / run.name)) for run in plan.runs),
        {"reliability": reliabilities(outcomes)},
    )


def _commands(study: Study) -> list[list[str]]:
    plan, folder = study.plan, study.folder
    first, second = plan.tasks[:2]  # type: ignore[attr-defined]
    one, other = (str(folder / "runs" / task) for task in (first, second))
    text = plan.text(first, folder)  # type: ignore[attr-defined]
    merged = f"{first} + {second}"
    return [
        ["evaluate", plan.model, "--adapter", one, "--adapter", other, "--merge", merged, "--data", text],
        ["compare", one, other, "--side", "all"],
    ]


def _run_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run_row(entry).items() if key != "method"}


PAPER = Paper(
    name="merging",
    about="how well predictors foretell what merging adapters does to the loss of each task",
    planned=plan_for,
    outcome=_outcome,
    controls={"shuffled": "tasks shuffled"},
    run_row=_run_row,
    commands=_commands,
    claims=("claim about predictors", "claims about predictors"),
)
