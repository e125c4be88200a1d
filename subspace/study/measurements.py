"""What is measured on the adapters of a study, by the same functions that a user calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from subspace.adapters import load_adapter
from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.study.mean_input import MeanInput, mean_input, read_inputs
from subspace.study.plan import Plan, base_folder
from subspace.study.random_adapter import random_adapter
from subspace.study.runs import DOSE, Run
from subspace.study.study_folder import run_record
from subspace.study.trio import Trio

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.results.amplification import Amplification
    from subspace.results.comparison import Comparison

__all__ = ["Measures", "measured"]

_SIDES = ("a", "b")
_BARELY = "barely-"
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Measures:
    """Everything that figures, tables and findings are computed from.

    Attributes
    ----------
    plan : of the study
    runs : content of each run's ``run.json``, by the run's name
    here : of the adapters of the study
    controls : the same of each control, by its key
    against_base : W against each adapter (figure 8), by the run's name
    amplified : table 7, by the run's name
    doses : r = 8 against r = 64 on another text, by the run's name; {} unless the study is full
    mean : how much of the first directions of r = 8 and r = 64 is the mean input
    """

    plan: Plan
    runs: Mapping[str, Mapping[str, Any]]
    here: Trio
    controls: Mapping[str, Trio]
    against_base: Mapping[str, Comparison]
    amplified: Mapping[str, Amplification]
    doses: Mapping[str, Comparison]
    mean: MeanInput

    def kind(self, module: str) -> tuple[str, str]:
        """Return which projection a module is ("q", "k", "v", "o" or ""), and the rest of its name, its layer."""
        for letter, name in vars(self.plan.names).items():
            if module == name or module.endswith(f".{name}"):
                return letter, module.removesuffix(name)
        return "", module

    def gain(self, run: str) -> float | None:
        """Return by how many nats a run lowered the held-out loss; None where that is not known."""
        held_out = self.runs[run].get("held_out") or {}
        before, after = (held_out.get(when, {}).get("loss") for when in ("before", "after"))
        return None if before is None or after is None else before - after


def measured(plan: Plan, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Measures:
    """Return what is measured on the trained adapters of a plan.

    Parameters
    ----------
    plan : whose runs are done
    folder : of the runs
    progress : called with (measures done, measures in all)

    Raises
    ------
    SubspaceError : an adapter cannot be read, or is untrained
    """
    return _Measuring(plan, folder, progress).all()


class _Measuring:
    """The measures of one study, which are counted as they are taken."""

    def __init__(self, plan: Plan, folder: Path, progress: Callable[[int, int], None] | None) -> None:
        self.plan, self.folder, self.progress = plan, folder, progress
        self.base = base_folder(plan.model)
        self.tables = [run.name for run in plan.runs if _in_table_7(run)]
        self.dosed = ["r8", "r64-seed1", "scrambled-r64", *(run.name for run in DOSE)] if plan.full else []
        self.dosed = [name for name in self.dosed if plan.has(name) and name != "r8"]
        self.done, self.total = 0, 2 * len(self.tables) + 18 + max(0, len(self.dosed) - 1)

    def all(self) -> Measures:
        amplified = {name: self.amplified(self.adapter(name)) for name in self.tables}
        against = {name: self.against_base(self.adapter(name)) for name in self.tables}
        lowest = self.plan.lowest
        here = Trio(
            ranks=self.compared("r8", "r64"),
            seeds=self.compared("r64", "r64-seed1"),
            low_rank=lowest.rank,
            low=amplified[lowest.name],
            high=amplified["r64"],
            against_base=against[lowest.name],
        )
        controls = {"scrambled": self.scrambled(), "barely": self.barely(), "random": self.random()}
        doses = {name: self.dose(name, controls["scrambled"]) for name in self.dosed}
        runs = {run.name: run_record(self.folder / run.name) for run in self.plan.runs}
        mean = mean_input(read_inputs(self.plan), self.adapter("r8"), self.adapter("r64"))
        return Measures(self.plan, runs, here, controls, against, amplified, doses, self.tick(mean))

    def scrambled(self) -> Trio:
        """An adapter of the scrambled text takes the place of the second adapter, and of the amplified ones."""
        low, high = (self.adapter(f"scrambled-{name}") for name in ("r8", "r64"))
        return Trio(
            ranks=self.compared("r8", "scrambled-r64"),
            seeds=self.compared("r64", "scrambled-r64"),
            low_rank=8,
            low=self.amplified(low),
            high=self.amplified(high),
            against_base=self.against_base(low),
        )

    def barely(self) -> Trio:
        low, high = (self.adapter(f"{_BARELY}{name}") for name in ("r8", "r64"))
        return Trio(
            ranks=self.compared(f"{_BARELY}r8", f"{_BARELY}r64"),
            seeds=self.compared(f"{_BARELY}r64", f"{_BARELY}r64-seed1"),
            low_rank=8,
            low=self.amplified(low),
            high=self.amplified(high),
            against_base=self.against_base(low),
        )

    def random(self) -> Trio:
        low, high, other = (
            random_adapter(self.adapter(name), seed=seed)
            for seed, name in enumerate(("r8", "r64", "r64-seed1"))
        )
        return Trio(
            ranks=self.tick(compare(low, high, side=_SIDES)),
            seeds=self.tick(compare(high, other, side=_SIDES)),
            low_rank=8,
            low=self.amplified(low),
            high=self.amplified(high),
            against_base=self.against_base(low),
        )

    def dose(self, name: str, scrambled: Trio) -> Comparison:
        return scrambled.ranks if name == "scrambled-r64" else self.compared("r8", name)

    def compared(self, first: str, second: str) -> Comparison:
        starts = tuple(self.adapter(name, start=True) for name in (first, second))
        return self.tick(compare(self.adapter(first), self.adapter(second), side=_SIDES, init=starts))

    def amplified(self, adapter: Adapter) -> Amplification:
        return self.tick(amplify(self.base, adapter))

    def against_base(self, adapter: Adapter) -> Comparison:
        return self.tick(compare(self.base, adapter))

    def tick(self, result: _T) -> _T:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
        return result

    def adapter(self, name: str, *, start: bool = False) -> Adapter:
        """The adapter of a run, or its start; of a fused layer its groups, whose scale loralib's format lacks."""
        run = self.plan.run(name)
        path = self.folder / name / "start" if start else self.folder / name
        groups = self.plan.groups(run)
        if groups is None:
            return load_adapter(path)
        return load_adapter(path, scale=self.plan.recipe.alpha / run.rank, enable_lora=groups)


def _in_table_7(run: Run) -> bool:
    return run.weights == "qv" and run.rank > 1 and not run.text and not run.barely
