"""What is trained to test forecasts of merging: one adapter of q and v for each of eight tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.study.paper import Choices
from subspace.study.papers.merging import _texts
from subspace.study.plan import DEFAULT_STEPS, planned
from subspace.study.tuned_plan import TunedPlan, TunedRun
from subspace.text import counted, shown

if TYPE_CHECKING:
    from subspace.training.job import Job

__all__ = ["MergingPlan", "plan_for"]

RANK = 8
TRIPLES = 16  # of the 56 of eight tasks
_LEAST, _MOST = 4, 12  # tasks of one's own


@dataclass(frozen=True)
class MergingPlan(TunedPlan):
    """A study of merging.

    Attributes
    ----------
    tasks : names of the tasks
    """

    tasks: tuple[str, ...] = ()

    @property
    def copies(self) -> int:
        """How often every task is trained, each time from another seed."""
        return len(self.runs) // len(self.tasks)

    def name(self, task: str, copy: int) -> str:
        """Return the name of a run of a task."""
        return task if not copy else f"{task}-again"

    def task(self, run: TunedRun) -> str:
        """Return the task of a run."""
        return self.tasks[run.seed % len(self.tasks)]

    def sets(self) -> list[tuple[str, ...]]:
        """Return the sets of tasks that are merged: all pairs, and triples, of which every task has about as many."""
        triples = list(combinations(self.tasks, 3))
        return [*combinations(self.tasks, 2), *(triples if self.full else _balanced(triples, TRIPLES))]

    def text(self, task: str, folder: Path) -> str:
        """Return what a task is trained on, as ``subspace train --data`` takes it; `folder` is the study's."""
        return str(Path(self.data) / task) if self.data is not None else _texts.path_of(task, folder)

    def job(self, run: TunedRun, folder: Path) -> Job:
        """Return the training job of a run; `folder` is the study's."""
        return replace(super().job(run, folder), data=self.text(self.task(run), folder))

    def prepare(self, folder: Path) -> None:
        """Write the texts of the tasks."""
        if self.data is None:
            _texts.write(folder)

    def settings(self) -> dict[str, object]:
        """Return everything that must be the same for a study to go on, as plain values by name."""
        return {**super().settings(), "rank": RANK, "tasks": list(self.tasks)}


def _balanced(triples: Sequence[tuple[str, ...]], most: int) -> list[tuple[str, ...]]:
    """Triples in a seeded order, always one whose tasks were taken least often."""
    order = np.random.default_rng(0).permutation(len(triples))
    left = [triples[n] for n in order]
    taken: list[tuple[str, ...]] = []
    counts: dict[str, int] = {}
    while left and len(taken) < most:
        best = min(left, key=lambda each: sum(counts.get(task, 0) ** 2 for task in each))
        left.remove(best)
        taken.append(best)
        counts |= {task: counts.get(task, 0) + 1 for task in best}
    return taken


def plan_for(choices: Choices) -> MergingPlan:
    """Return the plan of the study; the model must be one that section 7 of the LoRA paper can be repeated on.

    Raises
    ------
    InconclusiveError : the model's query and value projections are not known, or too narrow; too few files of data
    SubspaceError : there is no such model
    """
    if choices.pretraining_text is not None:
        raise ValueRangeError(
            "Forgetting is not measured in the study of merging; leave `pretraining_text` out, or give `paper` "
            "intruders"
        )
    lora = planned(choices.model, steps=choices.steps)
    how = lora.recipe
    tasks = (*_texts.TEXTS, *_texts.NULLS) if choices.data is None else tuple(_files(choices.data))
    plan = MergingPlan(
        paper="merging",
        model=choices.model,
        data=choices.data,
        runs=(),
        patterns=lora.targets(lora.run("r8")),
        n_steps=how.steps,
        default_steps=DEFAULT_STEPS,
        full=choices.full,
        batch_size=how.batch,
        length=how.length,
        alpha=how.alpha,
        tasks=tasks,
    )
    runs = (
        # every run has a seed of its own: adapters that began alike would share their start
        TunedRun(plan.name(task, copy), how.lr, RANK, seed=n + copy * len(tasks))
        for copy in ((0, 1) if choices.full else (0,))
        for n, task in enumerate(tasks)
    )
    return replace(plan, runs=tuple(runs))


def _files(data: str) -> Iterator[str]:
    """The names of the texts in a folder, each of which is a task."""
    folder = Path(data)
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    names = [name for name in names if not name.startswith(".")]
    if not _LEAST <= len(names) <= _MOST:
        raise InconclusiveError(
            f"Merging is studied on {_LEAST} to {_MOST} tasks, each a file of text: {shown(data)} has "
            f"{counted(len(names), 'file')}; give `data` a folder with one file for each task"
        )
    yield from names
