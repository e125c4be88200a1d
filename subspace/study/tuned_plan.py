"""Runs that differ in method, rank, scale and learning rate, on one text: what the younger studies train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import ValueRangeError
from subspace.study.plan import BARELY_STEPS, EMBEDDED

if TYPE_CHECKING:
    from subspace.training.job import Job

__all__ = ["TunedPlan", "TunedRun", "run_entry", "run_row"]


@dataclass(frozen=True)
class TunedRun:
    """One run: LoRA, or full fine-tuning of the same matrices.

    Attributes
    ----------
    name : name of its folder
    lr : peak learning rate
    rank : LoRA rank r; None for full fine-tuning
    rslora : whether the scale is alpha / sqrt(r) in place of alpha / r
    seed : seed of its start and of the order of its data
    barely : whether it has a few steps only
    """

    name: str
    lr: float
    rank: int | None = None
    rslora: bool = False
    seed: int = 0
    barely: bool = False


@dataclass(frozen=True)
class TunedPlan:
    """What a study of such runs trains, and on what; in parts the attributes of `subspace.study.plan.Plan`.

    Attributes
    ----------
    paper : name of the file of `subspace.study.papers` that it is of
    model, data : as ``subspace train`` takes them
    runs : what is trained
    patterns : of the layers that are changed, as ``subspace train --targets`` takes them
    n_steps : optimiser steps of a run that is not barely trained
    default_steps : those that nobody has to ask for
    full : whether it is the larger study
    pretraining_text : path of the text that forgetting is measured on; None where it is not measured
    batch_size, length : windows per step and tokens per window
    alpha : delta_W = alpha / r B A, or alpha / sqrt(r) B A
    """

    paper: str
    model: str
    data: str | None
    runs: tuple[TunedRun, ...]
    patterns: tuple[str, ...]
    n_steps: int
    default_steps: int
    full: bool = False
    pretraining_text: str | None = None
    batch_size: int = 8
    length: int = 64
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise ValueRangeError(f"Invalid `steps` {self.n_steps}: it must be at least 1")

    def steps(self, run: TunedRun) -> int:
        """Return how many steps a run has."""
        return min(BARELY_STEPS, self.n_steps) if run.barely else self.n_steps

    def batch(self, run: TunedRun) -> int:
        """Return how many windows a step of a run has."""
        return self.batch_size

    def targets(self, run: TunedRun) -> tuple[str, ...]:
        """Return the patterns of the layers that a run changes."""
        return self.patterns

    def run(self, name: str) -> TunedRun:
        """Return the run of that name."""
        return next(run for run in self.runs if run.name == name)

    def scale(self, run: TunedRun) -> float | None:
        """Return the scale of ``B A``; None for full fine-tuning."""
        return None if run.rank is None else self.alpha / (run.rank**0.5 if run.rslora else run.rank)

    def job(self, run: TunedRun, folder: Path) -> Job:
        """Return the training job of a run; `folder` is the study's."""
        from subspace.training.job import Job
        from subspace.training.methods.full import Full
        from subspace.training.methods.lora import LoRA
        from subspace.training.recipe import Recipe

        adapted = run.rank is not None
        return Job(
            model=self.model,
            data=self.data,
            method=LoRA(r=run.rank, alpha=self.alpha, rslora=run.rslora, seed=run.seed)  # type: ignore[arg-type]
            if adapted
            else Full(everything=False),
            targets=self.patterns,
            recipe=Recipe(
                steps=self.steps(run),
                batch=self.batch_size,
                length=self.length,
                lr=run.lr,
                seed=run.seed,
                data_seed=run.seed,
            ),
            threads=1,
            accounts=False,
        )

    def prepare(self, folder: Path) -> None:
        """Write nothing: the runs read the data alone."""

    def settings(self) -> dict[str, object]:
        """Return everything that must be the same for a study to go on, as plain values by name."""
        return {
            "paper": self.paper,
            "model": self.model,
            "data": self.data,
            "steps": self.n_steps,
            "batch": self.batch_size,
            "length": self.length,
            "alpha": self.alpha,
            "targets": list(self.patterns),
        }

    def words(self) -> list[str]:
        """Return the words of the command that makes the study, after ``subspace reproduce``, without its folder."""
        given: dict[str, Any] = {
            "--model": None if self.model == EMBEDDED else self.model,
            "--data": self.data,
            "--pretraining-text": None if self.model == EMBEDDED else self.pretraining_text,
            "--steps": None if self.n_steps == self.default_steps else self.n_steps,
        }
        words = [str(word) for pair in given.items() if pair[1] is not None for word in pair]
        return ["--paper", self.paper, *words, *(["--full"] if self.full else [])]


def run_entry(plan: TunedPlan, run: TunedRun, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a study says of a run, from the content of its ``run.json``."""
    keys = ("model_type", "task", "data", "trainable", "held_out", "computed", "settings")
    own = {**asdict(run), "scale": plan.scale(run), "targets": plan.targets(run)}
    return {**own, **{key: record.get(key) for key in keys}}


def run_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first columns of a run in the page's table of runs."""
    return {
        "run": entry["name"],
        "method": "full fine-tuning" if entry["rank"] is None else "LoRA",
        "r": entry["rank"],
        "scale": entry["scale"],
        "learning rate": entry["lr"],
        "seed": entry["seed"],
    }
