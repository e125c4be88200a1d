"""What is trained to look for intruder dimensions: LoRA of three ranks and full fine-tuning, each at three rates."""

from __future__ import annotations

from dataclasses import replace

from subspace.errors import InconclusiveError
from subspace.study.paper import Choices
from subspace.study.plan import EMBEDDED
from subspace.study.tuned_plan import TunedPlan, TunedRun
from subspace.text import shown

__all__ = ["DEFAULT_STEPS", "METHODS", "RATES", "method_of", "plan_for"]

DEFAULT_STEPS = 100
# learning rates of LoRA; full fine-tuning has a third of each, at which it reaches about the same losses
RATES = (1e-3, 3e-3, 1e-2)
_FULL_RATES = (3e-4, 1e-3, 3e-3)
# name -> rank and whether the scale is rank-stabilised, as alpha = 2 r of the paper is
METHODS = {
    "r1": (1, False),
    "r8": (8, False),
    "r64": (64, False),
    "r64-rs": (64, True),
    "full": (None, False),
}
_MIDDLE = 1


def plan_for(choices: Choices) -> TunedPlan:
    """Return the plan of the study.

    Raises
    ------
    InconclusiveError : nobody knows what the model was pre-trained on
    SubspaceError : there is no such model
    """
    runs = [
        TunedRun(f"{name}-lr{rate:g}", rate, rank, rslora)
        for name, (rank, rslora) in METHODS.items()
        for rate in (RATES if rank else _FULL_RATES)
    ]
    again = [replace(run, name=f"{run.name}-seed1", seed=1) for run in runs] if choices.full else []
    barely = [
        replace(run, name=f"barely-{run.name}", barely=True)
        for run in runs
        if run.lr == (RATES if run.rank else _FULL_RATES)[_MIDDLE]
    ]
    steps = DEFAULT_STEPS if choices.steps is None else choices.steps
    return TunedPlan(
        paper="intruders",
        model=choices.model,
        data=choices.data,
        runs=(*runs, *again, *barely),
        patterns=("all-linear",),
        n_steps=steps,
        default_steps=DEFAULT_STEPS,
        full=choices.full,
        pretraining_text=_text(choices),
    )


def method_of(run: TunedRun) -> str:
    """Return which of `METHODS` a run is of."""
    return next(name for name, kind in METHODS.items() if kind == (run.rank, run.rslora))


def _text(choices: Choices) -> str:
    if choices.pretraining_text is not None:
        return choices.pretraining_text
    if choices.model == EMBEDDED:
        from subspace.training.embedded import HELD_OUT

        return str(HELD_OUT)
    raise InconclusiveError(
        f"Nothing says what {shown(choices.model)} was pre-trained on, and forgetting is measured there; give "
        "`pretraining_text`, a file of such text"
    )
