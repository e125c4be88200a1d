"""One question asked of every module of an adapter and its base weight, a module at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Generic, TypeVar

from subspace.adapters import Adapter, BaseWeights
from subspace.adapters.naming.same_input import place_of
from subspace.adapters.place import place
from subspace.analysis.damage import Damage
from subspace.analysis.device import require_device
from subspace.analysis.known_directions import KnownDirections, directory, trimmed
from subspace.analysis.naming_notes import base_notes
from subspace.analysis.one_module import Measure, Opened, Outcome, Question, Site, opened
from subspace.analysis.resolve import Loading
from subspace.analysis.resume_file import resumed
from subspace.analysis.work import Work, about
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag, flag_notes
from subspace.text import counted, listed, module_shown

__all__ = ["Against", "Measure", "Scope", "Site", "against_base", "within_scope"]

R = TypeVar("R")


@dataclass(frozen=True)
class Scope:
    """Which modules a question is asked of, and how the work is done.

    Attributes
    ----------
    modules : patterns with * and ?, of which a module's name has to match one; () for all
    layers : numbers of layers; () for all
    jobs : number of processes; the numbers are the same to the bit as those of one process with one BLAS thread
    device : where the heavy products are computed, "cpu" or a device of torch such as "cuda": in float32 on either,
        which differ by about 1e-6 of the norm of W
    resume : file that keeps the rows of every module that is done; a second run with it goes on from there
    """

    modules: Sequence[str] = ()
    layers: Sequence[int] = ()
    jobs: int = 1
    device: str = "cpu"
    resume: str | os.PathLike[str] | None = None

    def require(self, base: object) -> None:
        """Refuse to resume without base weights, where nothing would be kept.

        Raises
        ------
        ValueRangeError : `resume` is given and no base is
        """
        if self.resume is not None and base is None:
            raise ValueRangeError(
                "Nothing to resume: `resume` keeps what is measured against base weights; give `base`, or leave "
                "`resume` out"
            )


@dataclass(frozen=True)
class Against(Generic[R]):
    """What was measured.

    Attributes
    ----------
    base, adapter : the two sides
    rows : rows of all modules, in the order of the adapter
    keys : module -> name of its weight in the base
    missing : modules that the base does not have
    damage : modules of which a number is not finite
    quantised : module -> how its weight is quantised in the file, of those that are
    remarks : on how the work was done, a sentence each
    """

    base: BaseWeights
    adapter: Adapter
    rows: tuple[R, ...]
    keys: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    damage: Damage = field(default_factory=Damage)
    quantised: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def notes(self, *, consequence: str = "the file is damaged or the training diverged") -> tuple[str, ...]:
        """What to know of both files and of the flags of the rows, a sentence each."""
        notes = [str(note) for note in self.adapter.notes if note.flag is not Flag.SCALE_UNKNOWN]
        notes += flag_notes(self._flags(), without=(Flag.NOT_FINITE,))
        notes += self.damage.notes(consequence=consequence)
        if self.missing:
            notes.append(f"{counted(len(self.missing), 'module')} not in the base: {listed(self.missing)}")
        return (*notes, *self._from_codes(), *base_notes(self.base, self.keys, self.missing), *self.remarks)

    def _from_codes(self) -> list[str]:
        """What quantised weights are stored as."""
        kinds = Counter(self.quantised.values())
        return [
            f"The base weights of {counted(count, 'module')} are stored as {kind}: the numbers are of W as the "
            "quantised model has it"
            for kind, count in kinds.items()
        ]

    def _flags(self) -> dict[str, tuple[Flag, ...]]:
        found: dict[str, tuple[Flag, ...]] = {}
        for row in self.rows:
            name: str = row.module  # type: ignore[attr-defined]
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *row.flags)))  # type: ignore[attr-defined]
        return found


def against_base(
    base: Any,
    delta: Any,
    measure: Measure[R],
    *,
    without_numbers: Measure[R],
    loading: Loading | None = None,
    scope: Scope | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Against[R]:
    """What a question finds in every module of an adapter and its base weight.

    Parameters
    ----------
    base : base weights, as `load_base` takes them
    delta : the adapter, as `load_adapter` takes it
    measure : the rows of one module; a function of a Python module, or a `partial` of one, so that another process can
        call it
    without_numbers : the rows of a module of which a number is not finite, with the flag `NOT_FINITE`
    loading : how the adapter is read
    scope : which modules, and how the work is done
    progress : called with (modules done, modules in all)

    Raises
    ------
    InconclusiveError : the base has no module of the adapter
    ValueRangeError : no module is in the scope, fewer than one job, or there is no such device
    FileError : the file to resume from is of another run
    SubspaceError : a file cannot be read
    """
    asked, how = scope or Scope(), loading or Loading()
    require_device(asked.device)
    sides = opened(base, delta, how)
    wanted = within_scope(sides.adapter, asked)
    known = KnownDirections(directory(), asked.device)
    question = Question(measure, without_numbers, asked.device, known)
    work = Work(sides, question, wanted, asked.jobs, base, delta, how)
    found = _Found[R](sides)
    with resumed(asked.resume, partial(about, sides, question, wanted)) as file:
        for done, outcome in enumerate(work.outcomes(file)):
            found.add(outcome)
            if progress is not None:
                progress(done + 1, len(wanted))
    trimmed(known.folder)
    if len(found.missing) == len(wanted):
        raise _nothing_in_common(sides.adapter, sides.base)
    return found.result(work.notes())


class _Found(Generic[R]):
    """Collects what is found while the modules go by."""

    def __init__(self, sides: Opened) -> None:
        self.sides = sides
        self.rows: list[R] = []
        self.keys: dict[str, str] = {}
        self.missing: list[str] = []
        self.quantised: dict[str, str] = {}
        self.damage = Damage()

    def add(self, outcome: Outcome) -> None:
        """Take in a module, which the base may not have."""
        if outcome.key is None:
            self.missing.append(outcome.module)
            return
        self.keys[outcome.module] = outcome.key
        if outcome.quantised:
            self.quantised[outcome.module] = outcome.quantised
        self.damage.add(outcome.module, outcome.bad)
        self.rows += outcome.rows

    def result(self, remarks: tuple[str, ...]) -> Against[R]:
        """All of it."""
        return Against(
            self.sides.base,
            self.sides.adapter,
            tuple(self.rows),
            self.keys,
            tuple(self.missing),
            self.damage,
            self.quantised,
            remarks,
        )


def within_scope(adapter: Adapter, scope: Scope) -> list[str]:
    """Names of the modules of an adapter that are in a scope, in its order.

    Raises
    ------
    ValueRangeError : none is
    """
    modules = list(adapter)
    if scope.modules:
        modules = [name for name in modules if any(fnmatchcase(name, pattern) for pattern in scope.modules)]
    if scope.layers:
        modules = [name for name in modules if set(place_of(name).layer[:1]) & set(scope.layers)]
    if not modules:
        asked = [listed(scope.modules)] if scope.modules else []
        asked += [f"`layers` {listed(map(str, scope.layers))}"] if scope.layers else []
        raise ValueRangeError(
            f"No module matches {' and '.join(asked)}; there are {listed(adapter, most=5)}, in {place(adapter.path)}"
        )
    return modules


def _nothing_in_common(adapter: Adapter, base: BaseWeights) -> InconclusiveError:
    return InconclusiveError(
        f"No module of the adapter is in the base: {place(adapter.path)} has "
        f"{module_shown(next(iter(adapter)))}, and {place(base.path)} has "
        f"{module_shown(next(iter(base.modules), 'none'))}; rename modules with `rename`, or give the base that the "
        "adapter was trained on"
    )
