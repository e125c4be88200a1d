"""The claims of "LoRA vs Full Fine-tuning: An Illusion of Equivalence" on intruder dimensions and forgetting.

References
----------
Shuttleworth et al., arXiv 2410.21228.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.study.paper import Outcome, Paper
from subspace.study.papers.intruders._planned import plan_for
from subspace.study.tuned_plan import run_entry, run_row

if TYPE_CHECKING:
    from subspace.study.papers.intruders._measured import Effect, Measures
    from subspace.study.study import Study
    from subspace.study.tuned_plan import TunedPlan

__all__ = ["PAPER"]

_CONTROLS = {"barely": "barely trained", "random": "random updates", "shrunk": "whole update shrunk"}


def _outcome(plan: TunedPlan, folder: Path, progress: Callable[[int, int], None] | None) -> Outcome:
    from subspace.study.papers.intruders._figures import pictures
    from subspace.study.papers.intruders._findings import findings
    from subspace.study.papers.intruders._measured import measured
    from subspace.study.papers.intruders._tables import tables

    measures = measured(plan, folder, progress=progress)
    return Outcome(
        measures,
        findings(measures),
        tables(measures),
        tuple(pictures(measures)),
        tuple(run_entry(plan, run, measures.runs[run.name]) for run in plan.runs),
        _record(measures),
    )


def _record(measures: Measures) -> dict[str, Any]:
    """Every cosine and norm, by run and matrix."""
    kinds = {"trained": measures.trained, "random": measures.random}
    return {
        "base_loss": dict(zip(("task", "pretraining"), measures.base, strict=True)),
        "matrices": {
            kind: {name: _matrices(each) for name, each in effects.items()} for kind, effects in kinds.items()
        },
    }


def _matrices(effect: Effect) -> list[dict[str, Any]]:
    return [
        {
            "module": each.module,
            "cosines": each.cosines.tolist(),
            "S": each.S.tolist(),
            "edge": each.edge,
            "norm_W": each.norm_W,
            "norm_delta_W": each.norm_delta_W,
            "sigma_1_delta_W": float(each.S_delta[0]),
        }
        for each in effect.matrices
    ]


def _commands(study: Study) -> list[list[str]]:
    plan, folder = study.plan, study.folder / "runs"
    every = [word for run in plan.runs if not run.barely for word in ("--adapter", str(folder / run.name))]
    text = ["--data", f"pretraining={study.measures.plan.pretraining_text}", "--held-out", "1"]
    return [["evaluate", plan.model, *every], ["evaluate", plan.model, *every, *text]]


PAPER = Paper(
    name="intruders",
    about="the claims of Shuttleworth et al., arXiv 2410.21228, on intruder dimensions and forgetting",
    planned=plan_for,
    outcome=_outcome,
    controls=_CONTROLS,
    run_row=run_row,
    commands=_commands,
)
