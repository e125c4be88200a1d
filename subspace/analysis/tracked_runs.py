"""Runs measured: their checkpoints opened, sorted, and followed module by module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from subspace.adapters import Adapter, load_adapter, load_base, match_modules
from subspace.adapters.place import place
from subspace.analysis.checkpoint_files import GIVEN, Checkpoint
from subspace.analysis.checkpoint_steps import Step
from subspace.analysis.damage import Damage
from subspace.analysis.frames import is_untrained
from subspace.analysis.kinship import Kinship, signature
from subspace.analysis.module_steps import ModuleSteps, module_steps
from subspace.analysis.runs import RunOf, runs_of
from subspace.analysis.step_controls import StepControls
from subspace.analysis.step_intruders import Intruding, step_intruders
from subspace.analysis.trajectories import (
    MeasuredSide,
    Sized,
    measured_sides,
    module_trajectories,
    total_trajectories,
)
from subspace.errors import InconclusiveError, SubspaceError, located
from subspace.flags import Flag, flag_notes
from subspace.results.track import Track, rows_of
from subspace.results.trajectory import Run, Saved, Trajectory
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.analysis.controls import Kind
    from subspace.analysis.resolve import Loading

__all__ = ["Asked", "tracked", "tracked_run"]

_Progress = Callable[[int, int], None]
_LEFT_OUT = "the totals are of the other modules at this checkpoint"


@dataclass(frozen=True)
class Asked:
    """What is asked of every run; the fields are parameters of `track`."""

    sides: tuple[str, ...]
    directions: int | None
    init: Any
    kinds: tuple[Kind, ...]
    by: str
    k: int
    epsilon: float
    base: Any


@dataclass(frozen=True, eq=False)
class _Opened:
    """A checkpoint that was opened."""

    checkpoint: Checkpoint
    adapter: Adapter


def tracked(
    checkpoints: Sequence[Checkpoint],
    notes: Sequence[str],
    asked: Asked,
    loading: Loading,
    progress: _Progress | None = None,
) -> Track:
    """The result of `track` for checkpoints that were found, with the notes that this gave."""
    opened, left_out = _opened(checkpoints, loading)
    runs, remarks = runs_of([each.checkpoint for each in opened], lambda n: signature(opened[n].adapter))
    found = _followed(opened, runs, asked, progress, [*notes, *_unread(left_out), *remarks])
    _require_trained(found, opened)
    return replace(found, left_out=tuple(each.path for each, _ in left_out))


def tracked_run(
    checkpoints: Sequence[Checkpoint], asked: Asked, loading: Loading, *, trained: bool = True
) -> Track:
    """The same for checkpoints that are known to be of one run, in order.

    Parameters
    ----------
    trained : refuse a run in which nothing was trained
    """
    opened, _ = _opened(checkpoints, loading)
    run = RunOf(list(range(len(opened))), [None] * len(opened))
    found = _followed(opened, [run], asked, None, [])
    if trained:
        _require_trained(found, opened)
    return found


def _followed(
    opened: Sequence[_Opened],
    runs: Sequence[RunOf],
    asked: Asked,
    progress: _Progress | None,
    notes: Sequence[str],
) -> Track:
    following = _Following(asked, opened, progress, sum(len(opened[run.members[-1]].adapter) for run in runs))
    found = tuple(following.run(run) for run in runs)
    return Track(
        runs=found,
        modules=rows_of(found, asked.by),
        by=asked.by,
        epsilon=None if following.intruding is None else asked.epsilon,
        k=None if following.intruding is None else asked.k,
        notes=tuple(dict.fromkeys((*notes, *following.notes(found)))),
    )


def _require_trained(result: Track, opened: Sequence[_Opened]) -> None:
    totals = [each for run in result.runs for each in run.total]
    # what B = 0 leaves has rows of A, and neither a cosine nor any other side
    if not any(each.cosine[-1] is not None or (each.side != "a" and each.to_final[-1]) for each in totals):
        raise InconclusiveError(
            f"No checkpoint has a direction to follow: every delta_W is zero (untrained), in "
            f"{place(opened[-1].adapter.path)}; give checkpoints of later steps"
        )


def _opened(
    checkpoints: Sequence[Checkpoint], loading: Loading
) -> tuple[list[_Opened], list[tuple[Checkpoint, SubspaceError]]]:
    """The checkpoints that are adapters, and the errors of the others, which is raised where there is nothing else."""
    opened: list[_Opened] = []
    left_out: list[tuple[Checkpoint, SubspaceError]] = []
    for each in checkpoints:
        try:
            adapter = each.adapter(loading)
        except SubspaceError as error:
            left_out.append((each, error))
            continue
        opened.append(_Opened(_as_start(each, adapter), adapter))
    if not opened:
        raise left_out[0][1]
    return sorted(opened, key=_order(opened)), left_out


def _order(opened: Sequence[_Opened]) -> Callable[[_Opened], tuple[int, bool]]:
    """Groups as they are, and in each what turned out to be a start first."""
    groups = list(dict.fromkeys(each.checkpoint.group for each in opened))
    return lambda each: (groups.index(each.checkpoint.group), not each.checkpoint.starts)


def _as_start(checkpoint: Checkpoint, adapter: Adapter) -> Checkpoint:
    """A checkpoint that says no step and was not trained is the start of its run."""
    if checkpoint.step.number is None and all(is_untrained(update) for update in adapter.values()):
        step = Step(0, "step", "untrained", checkpoint.step.family)
        return replace(checkpoint, step=step, starts=True)
    return checkpoint


def _unread(left_out: Sequence[tuple[Checkpoint, SubspaceError]]) -> list[str]:
    return [
        f"{shown(each.path, longest=300)} was left out, as it cannot be read: {str(error).partition('; ')[0]}"
        for each, error in left_out
    ]


class _Following:
    """Follows runs, module by module; what stays the same over them, and what was noticed."""

    def __init__(
        self, asked: Asked, opened: Sequence[_Opened], progress: _Progress | None, modules: int
    ) -> None:
        self.asked, self.opened, self.progress, self.modules = asked, opened, progress, modules
        self.intruding = (
            None if asked.base is None else Intruding(load_base(asked.base), asked.k, asked.epsilon)
        )
        self.init = None if asked.init is None else load_adapter(asked.init)
        self.damage, self.done, self.lacking = Damage(), 0, dict[str, list[str]]()

    def run(self, run: RunOf) -> Run:
        """One run."""
        members = [self.opened[n] for n in run.members]
        start, kind = self._start(members)
        modules, total = self._trajectories(members, start, removed=kind != "first_checkpoint")
        steps = [each.checkpoint.step for each in members]
        group = members[0].checkpoint.group
        return Run(
            name=members[-1].checkpoint.path if group == GIVEN else group,
            unit=next((step.unit for step in steps if step.number is not None), "step"),
            checkpoints=_saved(members, run.links),
            start=kind,
            modules=modules,
            total=total,
            parent=run.parent,
            resumed=tuple(self.opened[n].checkpoint.step.number for n in run.resumed),
        )

    def _trajectories(
        self, members: Sequence[_Opened], start: Adapter, *, removed: bool
    ) -> tuple[tuple[Trajectory, ...], tuple[Trajectory, ...]]:
        """Those of every module, in the order of the last checkpoint, and those of all together."""
        final = members[-1].adapter
        names = [_names(final, each.adapter) for each in members]
        controls = StepControls(list(final), self.asked.kinds)
        sides: list[MeasuredSide] = []
        sizes: dict[str, Sized] = {}
        for module in controls.in_order():
            own = zip(members, names, strict=True)
            updates = [each.adapter.get(found.get(module, "")) for each, found in own]
            with located(partial(place, final.path, module)):
                found, sizes[module] = self._measured(members, updates, start, module, removed)
            controls.add(module, found.sides)
            sides += measured_sides(found)
            self._finish(members, module, updates)
        order = {module: n for n, module in enumerate(final)}
        sides.sort(key=lambda each: order[each.module])
        modules = module_trajectories(sides, sizes, controls)
        return modules, total_trajectories(sides, sizes, modules)

    def _measured(
        self,
        members: Sequence[_Opened],
        updates: Sequence[Update | None],
        start: Adapter,
        module: str,
        removed: bool,
    ) -> tuple[ModuleSteps, Sized]:
        found = module_steps(
            updates,
            [each.adapter.path for each in members],
            start=_of_start(start, module, members, updates),
            sides=self.asked.sides,
            directions=self.asked.directions,
            removed=removed,
        )
        self.damage.add(module, found.bad)
        final = members[-1].adapter
        return found, Sized.of(
            found, step_intruders(self.intruding, updates, final) if self.intruding else ()
        )

    def _start(self, members: Sequence[_Opened]) -> tuple[Adapter, str]:
        first = members[0]
        if self.init is not None and any(_fits(self.init, each.adapter) for each in members):
            return self.init, "given"
        if first.checkpoint.starts or all(is_untrained(update) for update in first.adapter.values()):
            return first.adapter, "step_0"
        return first.adapter, "first_checkpoint"

    def _finish(self, members: Sequence[_Opened], module: str, updates: Sequence[Update | None]) -> None:
        """Free what was read, and count."""
        for each, update in zip(members, updates, strict=True):
            each.adapter.release()
            if update is None:
                self.lacking.setdefault(each.checkpoint.path, []).append(module)
        if self.init is not None:
            self.init.release()
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.modules)

    def notes(self, runs: Sequence[Run]) -> list[str]:
        """What to know before reading the numbers."""
        flags = {each.module: each.flags for run in runs for each in run.modules}
        notes = [str(note) for each in self.opened for note in each.adapter.notes if note.flag is None]
        notes += flag_notes(flags, without=(Flag.NOT_FINITE,))
        notes += self.damage.notes(consequence=_LEFT_OUT)
        notes += [
            f"{shown(path, longest=300)} lacks {counted(len(modules), 'module')} of the last checkpoint: "
            f"{listed(modules)}"
            for path, modules in self.lacking.items()
        ]
        if self.init is not None and not any(run.start == "given" for run in runs):
            notes.append(
                f"The start that was given has the modules and ranks of no run: {shown(self.init.path, longest=300)}; "
                "give the adapter before training as `init`"
            )
        return notes


def _names(final: Adapter, other: Adapter) -> dict[str, str]:
    """Module of the last checkpoint -> its name in another."""
    names = list(final)
    if list(other) == names:
        return {name: name for name in names}
    return dict(match_modules(names, list(other)).pairs)


def _of_start(
    start: Adapter, module: str, members: Sequence[_Opened], updates: Sequence[Update | None]
) -> Update | None:
    """The module in the start; the very object of the first checkpoint, where that is the start."""
    if start is members[0].adapter:
        return updates[0]
    name = _names(members[-1].adapter, start).get(module)
    return None if name is None else start[name]


def _fits(start: Adapter, adapter: Adapter) -> bool:
    names = _names(adapter, start)
    return bool(names) and all(start[own].r == adapter[name].r for name, own in names.items())


def _saved(members: Sequence[_Opened], links: Sequence[Kinship | None]) -> tuple[Saved, ...]:
    return tuple(
        Saved(
            each.checkpoint.path,
            each.checkpoint.step.number,
            each.checkpoint.step.source,
            None if link is None or link.z != link.z else link.z,
            None if link is None or link.cosine != link.cosine else link.cosine,
        )
        for each, link in zip(members, links, strict=True)
    )
