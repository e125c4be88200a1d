"""What is trained to test advice on ranks: LoRA of every rank on q and v, the largest of them twice."""

from __future__ import annotations

from dataclasses import replace

from subspace.errors import ValueRangeError
from subspace.study.paper import Choices
from subspace.study.plan import DEFAULT_STEPS, planned
from subspace.study.tuned_plan import TunedPlan, TunedRun

__all__ = ["RANKS", "WHOLE", "plan_for"]

RANKS = (1, 2, 4, 8, 16, 32, 64)
WHOLE = ("r64", "r64-seed1")  # the runs that are cut


def plan_for(choices: Choices) -> TunedPlan:
    """Return the plan of the study; the model must be one that section 7 of the LoRA paper can be repeated on.

    Raises
    ------
    InconclusiveError : the model's query and value projections are not known, or too narrow
    SubspaceError : there is no such model
    """
    if choices.pretraining_text is not None:
        raise ValueRangeError(
            "Forgetting is not measured in the study of ranks; leave `pretraining_text` out, or give `paper` intruders"
        )
    lora = planned(choices.model, choices.data, steps=choices.steps)
    how = lora.recipe
    runs = [TunedRun(f"r{rank}", how.lr, rank) for rank in RANKS]
    again = [replace(run, name=f"{run.name}-seed1", seed=1) for run in runs]
    barely = replace(runs[-1], name="barely-r64", barely=True)
    return TunedPlan(
        paper="rank",
        model=choices.model,
        data=choices.data,
        runs=(*runs, *(again if choices.full else again[-1:]), barely),
        patterns=lora.targets(lora.run("r8")),
        n_steps=how.steps,
        default_steps=DEFAULT_STEPS,
        full=choices.full,
        batch_size=how.batch,
        length=how.length,
        alpha=how.alpha,
    )
