"""What rules of thumb advise as a rank, against the measured loss of adapters that are trained at it or cut to it.

References
----------
Hu et al., arXiv 2106.09685v2, section 7.2 and table 6; the rules' own are in `_advice`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.study.paper import Outcome, Paper
from subspace.study.papers.rank._planned import RANKS, WHOLE, plan_for
from subspace.study.tuned_plan import run_entry, run_row

if TYPE_CHECKING:
    from subspace.study.study import Study
    from subspace.study.tuned_plan import TunedPlan

__all__ = ["PAPER"]


def _outcome(plan: TunedPlan, folder: Path, progress: Callable[[int, int], None] | None) -> Outcome:
    from subspace.study.papers.rank._findings import findings
    from subspace.study.papers.rank._measured import measured
    from subspace.study.papers.rank._shown import pictures, tables

    measures = measured(plan, folder, progress=progress)
    return Outcome(
        measures,
        findings(measures),
        tables(measures),
        tuple(pictures(measures)),
        tuple(run_entry(plan, run, measures.runs[run.name]) for run in plan.runs),
        {"spectra": {module: S.tolist() for module, S in measures.spectra.items()}},
    )


def _commands(study: Study) -> list[list[str]]:
    folder, model = study.folder / "runs", study.plan.model
    every = [word for rank in RANKS for word in ("--adapter", str(folder / f"r{rank}"))]
    whole = str(folder / WHOLE[0])
    cut = ["--adapter", whole, "--truncate", ",".join(map(str, RANKS[:-1])), "--reference", WHOLE[0]]
    return [["evaluate", model, *every], ["evaluate", model, *cut], ["inspect", whole]]


PAPER = Paper(
    name="rank",
    about="what rules of thumb advise as a rank, against measured loss",
    planned=plan_for,
    outcome=_outcome,
    controls={"barely": "barely trained", "random": "random adapter"},
    run_row=run_row,
    commands=_commands,
    claims=("claim about ranks", "claims about ranks"),
)
