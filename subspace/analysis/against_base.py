"""One question asked of every module of an adapter and its base weight, a module at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from subspace.adapters import Adapter, BaseWeights, DenseUpdate, load_base
from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.naming.same_input import place_of
from subspace.adapters.place import place, within
from subspace.adapters.update import Update
from subspace.analysis.damage import Damage, damaged, damaged_places
from subspace.analysis.frames import is_untrained
from subspace.analysis.naming_notes import base_notes
from subspace.analysis.resolve import Loading
from subspace.errors import InconclusiveError, ValueRangeError, located
from subspace.flags import Flag, flag_notes
from subspace.text import counted, listed, shown

__all__ = ["Against", "Scope", "Site", "against_base", "within_scope"]

R = TypeVar("R")


class Site(NamedTuple):
    """A module of an adapter and its weight in the base.

    Attributes
    ----------
    weight : W, read when it is used
    update : delta_W
    adapter : the adapter that it is of
    """

    weight: BaseWeight
    update: Update
    adapter: Adapter


# the rows of one module; of two sides, for example, there are two
Measure: TypeAlias = "Callable[[Site], tuple[R, ...]]"


@dataclass(frozen=True)
class Scope:
    """Which modules a question is asked of, and how the work is done.

    Attributes
    ----------
    modules : patterns with * and ?, of which a module's name has to match one; () for all
    layers : numbers of layers; () for all
    jobs : number of processes
    device : where the heavy products are computed, as torch calls it
    resume : file that keeps the rows of every module that is done; a second run with it goes on from there
    """

    modules: Sequence[str] = ()
    layers: Sequence[int] = ()
    jobs: int = 1
    device: str = "cpu"
    resume: str | os.PathLike[str] | None = None


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
    """

    base: BaseWeights
    adapter: Adapter
    rows: tuple[R, ...]
    keys: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    damage: Damage = field(default_factory=Damage)

    def notes(self, *, consequence: str = "the file is damaged or the training diverged") -> tuple[str, ...]:
        """What to know of both files and of the flags of the rows, a sentence each."""
        notes = [str(note) for note in self.adapter.notes if note.flag is not Flag.SCALE_UNKNOWN]
        notes += flag_notes(self._flags(), without=(Flag.NOT_FINITE,))
        notes += self.damage.notes(consequence=consequence)
        if self.missing:
            notes.append(f"{counted(len(self.missing), 'module')} not in the base: {listed(self.missing)}")
        return (*notes, *base_notes(self.base, self.keys, self.missing))

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
    scope : which modules
    progress : called with (modules done, modules in all)

    Raises
    ------
    InconclusiveError : the base has no module of the adapter
    ValueRangeError : no module is in the scope
    SubspaceError : a file cannot be read
    """
    weights = load_base(base)
    adapter = replace(loading or Loading(), base=weights).adapter(delta)
    weights.require_names(adapter)
    wanted = within_scope(adapter, scope or Scope())
    found = _Found[R](weights, adapter)
    for done, module in enumerate(wanted):
        found.add(adapter[module], measure, without_numbers)
        weights.tensors.release()
        adapter.release()
        if progress is not None:
            progress(done + 1, len(wanted))
    if len(found.missing) == len(wanted):
        raise _nothing_in_common(adapter, weights)
    return Against(weights, adapter, tuple(found.rows), found.keys, tuple(found.missing), found.damage)


class _Found(Generic[R]):
    """Collects what is found while the modules go by."""

    def __init__(self, base: BaseWeights, adapter: Adapter) -> None:
        self.base, self.adapter = base, adapter
        self.rows: list[R] = []
        self.keys: dict[str, str] = {}
        self.missing: list[str] = []
        self.damage = Damage()

    def add(self, update: Update, measure: Measure[R], without_numbers: Measure[R]) -> None:
        """Take in a module, which the base may not have."""
        if Flag.NEEDS_BASE in update.flags and self.base.find(update.module) is not None:
            is_untrained(update)  # an adapter that was read without its base: the error says so
        weight = self.base.weight(update)
        if weight is None:
            self.missing.append(update.module)
            return
        self.keys[update.module] = weight.key
        with located(partial(self._place, update)):
            self.rows += self._measured(Site(weight, update, self.adapter), measure, without_numbers)

    def _measured(self, site: Site, measure: Measure[R], without_numbers: Measure[R]) -> tuple[R, ...]:
        try:
            return measure(site)
        except ValueRangeError:
            bad = damaged(list(self._sources(site.update)))
            if not bad:
                raise
        self.damage.add(site.update.module, bad)
        return without_numbers(site)

    def _place(self, update: Update) -> str:
        """Which module, and which of the two files is damaged."""
        return within(update.module, damaged_places(list(self._sources(update))))

    def _sources(self, update: Update) -> Iterator[tuple[str, Update]]:
        yield self.adapter.path, update
        weight = self.base.weight(update)
        if weight is not None:
            yield self.base.path, DenseUpdate(update.module, weight.factor())


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
        asked = [f"`modules` {listed(scope.modules)}"] if scope.modules else []
        asked += [f"`layers` {listed(map(str, scope.layers))}"] if scope.layers else []
        raise ValueRangeError(
            f"No module of the adapter matches {' and '.join(asked)}, in {place(adapter.path)}; it has "
            f"{listed(adapter)}"
        )
    return modules


def _nothing_in_common(adapter: Adapter, base: BaseWeights) -> InconclusiveError:
    return InconclusiveError(
        f"No module of the adapter is in the base: {place(adapter.path)} has {shown(next(iter(adapter)))}, and "
        f"{place(base.path)} has {shown(next(iter(base.modules), 'none'))}; rename modules with `rename`, or give "
        "the base that the adapter was trained on"
    )
