"""What is measured: the losses of every task alone and in sums, and how the updates meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.adapters import Adapter, load_adapter, load_base
from subspace.analysis.evaluate import evaluate
from subspace.analysis.inputs import inputs
from subspace.analysis.update_variants import BASE
from subspace.study.papers.merging._meetings import Meetings, meetings_of
from subspace.study.papers.merging._planned import MergingPlan
from subspace.study.plan import base_folder

if TYPE_CHECKING:
    from subspace.results.inputs import Inputs

__all__ = ["Measures", "Sample", "measured"]

WINDOWS = 48  # of each held-out text
TOKENS = 4096  # of each text, for the second moments of inputs


@dataclass(frozen=True)
class Sample:
    """What one task meets in one sum of adapters, with weight 1 each.

    Attributes
    ----------
    copy : which of the runs of every task it is
    task : number of the task whose loss is measured
    others : numbers of the other tasks in the sum
    base, own, merged : losses of the base, of the task's own adapter and of the sum, in nats
    other : loss of the other task's adapter alone; NaN of a triple
    """

    copy: int
    task: int
    others: tuple[int, ...]
    base: float
    own: float
    merged: float
    other: float

    @property
    def gain(self) -> float:
        """By how much the task's own adapter lowers the loss."""
        return self.base - self.own

    @property
    def harm(self) -> float:
        """The rise of the loss by merging, as a share of that gain; NaN where there is none."""
        return (self.merged - self.own) / self.gain if self.gain > 0 else math.nan

    @property
    def transfer(self) -> float:
        """What the other adapter alone gains for the task, as a share of that gain; NaN where there is none."""
        return (self.base - self.other) / self.gain if self.gain > 0 else math.nan


@dataclass(frozen=True, eq=False)
class Measures:
    """Everything that figures, tables and findings are computed from.

    Attributes
    ----------
    plan : of the study
    samples : of pairs and triples
    meetings : how the updates meet, of every copy
    """

    plan: MergingPlan
    samples: tuple[Sample, ...]
    meetings: tuple[Meetings, ...]

    def pairs(self) -> list[Sample]:
        """Return the samples of sums of two."""
        return [each for each in self.samples if len(each.others) == 1]

    def triples(self) -> list[Sample]:
        """Return the samples of sums of three."""
        return [each for each in self.samples if len(each.others) == 2]


def measured(
    plan: MergingPlan, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> Measures:
    """Return what is measured on the trained runs of a plan.

    Raises
    ------
    SubspaceError : something cannot be read
    """
    return _Measuring(plan, folder, progress or (lambda *_: None)).all()


class _Measuring:
    """The measures of one study, which are counted as they are taken."""

    def __init__(self, plan: MergingPlan, folder: Path, progress: Callable[[int, int], None]) -> None:
        self.plan, self.folder, self.progress = plan, folder, progress
        self.weights = load_base(base_folder(plan.model))
        self.done, self.total = 0, len(plan.tasks) * (1 + plan.copies) + plan.copies * len(plan.sets())

    def all(self) -> Measures:
        samples: list[Sample] = []
        meetings: list[Meetings] = []
        copies = [self.adapters(copy) for copy in range(self.plan.copies)]
        moments = [self.inputs(task) for task in self.plan.tasks]
        for copy, adapters in enumerate(copies):
            samples += self.samples(copy, adapters)
            meetings.append(self.meetings(adapters, moments))
        return Measures(self.plan, tuple(samples), tuple(meetings))

    def adapters(self, copy: int) -> dict[str, Adapter]:
        runs = {task: self.folder / self.plan.name(task, copy) for task in self.plan.tasks}
        return {task: load_adapter(path, base=self.weights) for task, path in runs.items()}

    def text(self, task: str) -> str:
        return self.plan.text(task, self.folder.parent)

    def inputs(self, task: str) -> Inputs:
        """Second moments of the inputs of the adapted modules on a task's text."""
        plan = self.plan
        found = inputs(plan.model, self.text(task), targets=plan.patterns, tokens=TOKENS, length=plan.length)
        self.tick()
        return found

    def samples(self, copy: int, adapters: Mapping[str, Adapter]) -> Iterator[Sample]:
        for n, task in enumerate(self.plan.tasks):
            sets = [each for each in self.plan.sets() if task in each]
            losses = self.losses(task, adapters, sets)
            for each in sets:
                others = tuple(name for name in each if name != task)
                yield Sample(
                    copy=copy,
                    task=n,
                    others=tuple(self.plan.tasks.index(name) for name in others),
                    base=losses[BASE],
                    own=losses[task],
                    merged=losses[_sum(each)],
                    other=losses[others[0]] if len(others) == 1 else math.nan,
                )
            self.tick()

    def losses(
        self, task: str, adapters: Mapping[str, Adapter], sets: Sequence[tuple[str, ...]]
    ) -> dict[str, float]:
        """Losses on a task's held-out text of the base, of every adapter, and of sums."""
        from subspace.training.recipe import Recipe

        found = evaluate(
            self.plan.model,
            adapters,
            {task: self.text(task)},
            merge=[dict.fromkeys(each, 1.0) for each in sets],
            held_out=Recipe.held_out,
            most=WINDOWS,
            length=self.plan.length,
            resamples=1,  # intervals are of the base alone, which is not what is asked here
        )
        return {row.update: row.loss for row in found.modules}

    def meetings(self, adapters: Mapping[str, Adapter], read: Sequence[Inputs]) -> Meetings:
        sets = [tuple(self.plan.tasks.index(name) for name in each) for each in self.plan.sets()]
        return meetings_of(adapters, read, sets, self.tick)

    def tick(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


def _sum(names: Sequence[str]) -> str:
    """What an evaluation calls a sum with weight 1 each."""
    return " + ".join(f"1*{name}" for name in names)
