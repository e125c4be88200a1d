"""Which checkpoints are of one run: joined by what they were found in, parted and linked by their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from subspace.analysis.checkpoint_files import GIVEN
from subspace.analysis.kinship import NEAR, Kinship, Signature, kinship
from subspace.results.trajectory import Kind, Parent
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.analysis.checkpoint_files import Checkpoint

__all__ = ["RunOf", "runs_of"]


@dataclass
class RunOf:
    """The checkpoints of one run, by their numbers.

    Attributes
    ----------
    members : numbers of the checkpoints, in the order of their steps
    parent : number of the run and of the checkpoint that it began from, and how
    links : what the numbers show of each checkpoint and the one before, None of the first
    resumed : numbers of the checkpoints with which another folder goes on
    """

    members: list[int]
    links: list[Kinship | None]
    parent: Parent | None = None
    resumed: list[int] = field(default_factory=list)


@dataclass
class _Sorting:
    """Checkpoints being sorted into runs; of each run the last member's signature is held."""

    checkpoints: Sequence[Checkpoint]
    sign: Callable[[int], Signature]
    runs: list[RunOf] = field(default_factory=list)
    held: dict[int, Signature] = field(default_factory=dict)
    duplicates: list[tuple[int, int]] = field(default_factory=list)

    def add(self, n: int) -> None:
        """Take in a checkpoint: at the end of the run of its group that it fits best, or as a run of its own."""
        own = self.sign(n)
        best: tuple[float, int, Kinship] | None = None
        for number, run in enumerate(self.runs):
            if self.checkpoints[run.members[-1]].group != self.checkpoints[n].group:
                continue
            found = kinship(self.held[number], own)
            if self._joins(run, n, found) and (best is None or _nearness(found) > best[0]):
                best = _nearness(found), number, found
        if best is None:
            self.runs.append(RunOf([n], [None]))
            self.held[len(self.runs) - 1] = own
            return
        _, number, found = best
        last = self.runs[number].members[-1]
        if found.verdict == "equal" and self._ends_alike(last, n):
            self.duplicates.append((last, n))
            return
        self.runs[number].members.append(n)
        self.runs[number].links.append(found)
        self.held[number] = own

    def _ends_alike(self, last: int, n: int) -> bool:
        """Whether an equal checkpoint is the same one once more, and not a later one of a run that stands still."""
        before, after = self.checkpoints[last].step, self.checkpoints[n].step
        return after.number is None or before.number == after.number

    def _joins(self, run: RunOf, n: int, found: Kinship) -> bool:
        last, one = self.checkpoints[run.members[-1]], self.checkpoints[n]
        if found.verdict in ("equal", "one_run"):
            # one step twice is two runs, unless it is one file twice
            return found.verdict == "equal" or one.step.number is None or one.step.number != last.step.number
        if found.verdict != "cannot_tell":
            return False
        return one.step.family == last.step.family or one.step.number is None or last.starts

    def link(self) -> None:
        """Find for every run the one that it goes on from, and join what a second folder resumes."""
        joined: dict[int, int] = {}
        for number, run in enumerate(self.runs):
            parent = self._parent(number, run, joined)
            if parent is None:
                continue
            before = self.runs[parent.run]
            if parent.kind == "resumed":
                before.resumed.append(run.members[0])
                before.members += run.members
                before.links += [parent_link(parent), *run.links[1:]]
                self.held[parent.run] = self.held[number]
                joined[number] = parent.run
            else:
                run.parent = parent
        kept = [n for n in range(len(self.runs)) if n not in joined]
        for run in (self.runs[n] for n in kept):
            if run.parent is not None:
                run.parent = run.parent._replace(run=kept.index(run.parent.run))
        self.runs = [self.runs[n] for n in kept]

    def _parent(self, number: int, run: RunOf, joined: dict[int, int]) -> Parent | None:
        """The checkpoint of an earlier run that a run's first is nearest to."""
        first = self.sign(run.members[0])
        best: Parent | None = None
        for other in range(number):
            if other in joined:
                continue
            for at, member in enumerate(self.runs[other].members):
                found = kinship(self.sign(member), first)
                kind = self._kind(other, at, run, found)
                if kind is None:
                    continue
                parent = Parent(other, self.checkpoints[member].step.number, kind, found.z, found.cosine)
                if best is None or _rank(parent) > _rank(best):
                    best = parent
        return best

    def _kind(self, other: int, at: int, run: RunOf, found: Kinship) -> Kind | None:
        # two starts are equal before anything was learned, and have no cosine
        near = found.cosine >= NEAR or (found.verdict == "equal" and found.cosine == found.cosine)
        if not near:
            alike = found.verdict in ("equal", "common_start", "one_run")
            return "common_start" if alike else None
        members = self.runs[other].members
        if at < len(members) - 1:
            return "branch"
        last, first = self.checkpoints[members[-1]].step, self.checkpoints[run.members[0]].step
        on = None not in (last.number, first.number) and last.unit == first.unit
        if on and (first.number or 0) > (last.number or 0):
            return "resumed"
        return "continued"


def parent_link(parent: Parent) -> Kinship:
    """What the numbers show of the checkpoint that a second folder goes on with, and the one before."""
    return Kinship("one_run", parent.start_z, float("nan"), parent.cosine)


def _rank(parent: Parent) -> tuple[bool, float]:
    cosine = parent.cosine if parent.cosine == parent.cosine else 0.0
    return parent.kind != "common_start", cosine


def _nearness(found: Kinship) -> float:
    if found.verdict == "equal":
        return 2.0
    return found.cosine if found.cosine == found.cosine else 0.0


def runs_of(
    checkpoints: Sequence[Checkpoint], sign: Callable[[int], Signature]
) -> tuple[list[RunOf], list[str]]:
    """The runs that checkpoints are of, and what was found odd, a sentence each.

    Parameters
    ----------
    checkpoints : those of one group in the order of their steps
    sign : gives the signature of a checkpoint by its number

    Notes
    -----
    A checkpoint is compared with the last one of each run of its group, and the first of each run with those of the
    others: N checkpoints of one folder take N comparisons.
    """
    sorting = _Sorting(checkpoints, sign)
    for n in range(len(checkpoints)):
        sorting.add(n)
    sorting.link()
    return sorting.runs, list(_remarks(sorting))


def _remarks(sorting: _Sorting) -> list[str]:
    names = [shown(each.path, longest=300) for each in sorting.checkpoints]
    remarks = [
        f"Two checkpoints are equal and counted once: {names[one]} and {names[other]}"
        for one, other in sorting.duplicates
    ]
    groups: dict[str, list[RunOf]] = {}
    for run in sorting.runs:
        groups.setdefault(sorting.checkpoints[run.members[0]].group, []).append(run)
    for group, runs in groups.items():
        if len(runs) > 1:
            where = "what was given" if group == GIVEN else shown(group, longest=300)
            remarks.append(
                f"There are {counted(len(runs), 'run')} in {where}, which the numbers show to be different: they begin "
                f"with {listed((names[run.members[0]] for run in runs), most=6)}"
            )
    unsure = [
        names[n]
        for run in sorting.runs
        for n, link in zip(run.members, run.links, strict=True)
        if link is not None and link.verdict == "cannot_tell"
    ]
    if unsure:
        remarks.append(
            "The numbers cannot tell whether these continue the run, since A has too few rows to compare them one by "
            f"one; they were joined by their names: {listed(unsure)}"
        )
    return remarks
