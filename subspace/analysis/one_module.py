"""A question asked of one module of an adapter and its base weight, by whichever process opens the two."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from subspace.adapters import Adapter, BaseWeights, DenseUpdate, load_base
from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.place import place, within
from subspace.adapters.update import Update
from subspace.analysis.damage import damaged, damaged_places
from subspace.analysis.device import products_on
from subspace.analysis.frames import is_untrained
from subspace.analysis.known_directions import KnownDirections
from subspace.analysis.resolve import Loading
from subspace.errors import FileError, ValueRangeError, located
from subspace.flags import Flag
from subspace.geometry.topk import Leading, leading

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile
    from subspace.checkpoints.held_file import Stamp

__all__ = [
    "Measure",
    "Opened",
    "Outcome",
    "Question",
    "Site",
    "Sources",
    "measured_by_path",
    "on_disk",
    "opened",
]

R = TypeVar("R")


class Site(NamedTuple):
    """A module of an adapter and its weight in the base.

    Attributes
    ----------
    weight : W, read when it is used
    update : delta_W
    adapter : the adapter that it is of
    known : leading directions of W that earlier runs have found
    """

    weight: BaseWeight
    update: Update
    adapter: Adapter
    known: KnownDirections = KnownDirections()

    def leading(self, k: int, *, tol: float | None = None, W: Any = None) -> Leading:
        """The top k singular triplets of W as stored, as `geometry.topk.leading`; looked up where they are known.

        Parameters
        ----------
        W : ``weight.streamed()``, where the caller has it already
        """
        matrix = self.weight.streamed() if W is None else W
        return self.known.of(matrix, lambda: leading(matrix, k, tol=tol), asked=("leading", k, tol))


# the rows of one module; of two sides, for example, there are two
Measure: TypeAlias = "Callable[[Site], tuple[R, ...]]"


class Outcome(NamedTuple):
    """What was found in one module.

    Attributes
    ----------
    module : its name
    key : of its weight in the base, None where the base does not have the module
    rows : what was measured
    quantised : how the weight is quantised in its file, empty where it is not
    bad : files with numbers of it that are not finite
    """

    module: str
    key: str | None = None
    rows: tuple[Any, ...] = ()
    quantised: str = ""
    bad: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question(Generic[R]):
    """What is asked of every module, and how; another process can be given it.

    Attributes
    ----------
    measure, without_numbers : as `against_base` takes them
    device : where the heavy products are computed
    known : leading directions that earlier runs have found
    """

    measure: Measure[R]
    without_numbers: Measure[R]
    device: str = "cpu"
    known: KnownDirections = field(default_factory=KnownDirections)


@dataclass(frozen=True)
class Opened:
    """The two sides, open in this process."""

    base: BaseWeights
    adapter: Adapter

    def answer(self, question: Question[R], module: str) -> Outcome:
        """Ask a question of one module, and free the memory that this took."""
        with products_on(question.device):
            outcome = self._answer(question, self.adapter[module])
        self.base.tensors.release()
        self.adapter.release()
        return outcome

    def _answer(self, question: Question[R], update: Update) -> Outcome:
        if Flag.NEEDS_BASE in update.flags and self.base.find(update.module) is not None:
            is_untrained(update)  # an adapter that was read without its base: the error says so
        weight = self.base.weight(update)
        if weight is None:
            return Outcome(update.module)
        site = Site(weight, update, self.adapter, question.known)
        with located(partial(self._place, update)):
            rows, bad = self._measured(site, question)
        if weight.quantised:
            rows = tuple(map(_flagged, rows))
        return Outcome(update.module, weight.key, rows, weight.quantised, tuple(bad))

    def _measured(self, site: Site, question: Question[R]) -> tuple[tuple[R, ...], list[str]]:
        try:
            return question.measure(site), []
        except ValueRangeError:
            bad = damaged(list(self._sources(site.update)))
            if not bad:
                raise
        return question.without_numbers(site), bad

    def _place(self, update: Update) -> str:
        """Which module, and which of the two files is damaged."""
        return within(update.module, damaged_places(list(self._sources(update))))

    def _sources(self, update: Update) -> Iterator[tuple[str, Update]]:
        yield self.adapter.path, update
        weight = self.base.weight(update)
        if weight is not None:
            yield self.base.path, DenseUpdate(update.module, weight.factor())

    def stamps(self) -> tuple[Stamp, ...]:
        """Of the files of both sides, to tell whether another process has opened the same."""
        return tuple(stamp for file in self.files() for stamp in file.stamps())

    def files(self) -> tuple[TensorFile, ...]:
        """The tensors of both sides."""
        return tuple(file for file in (self.base.tensors, self.adapter.tensors) if file is not None)


def _flagged(row: R) -> R:
    """A row with the flag that W was computed from codes, where its class has flags."""
    flags = getattr(row, "flags", None)
    return row if flags is None else replace(row, flags=(*flags, Flag.DEQUANTISED))  # type: ignore[type-var]


def opened(base: Any, delta: Any, loading: Loading) -> Opened:
    """Open both sides; errors as `load_base` and `load_adapter`."""
    weights = load_base(base)
    adapter = replace(loading, base=weights).adapter(delta)
    weights.require_names(adapter)
    return Opened(weights, adapter)


def on_disk(*sources: Any) -> bool:
    """Whether all sources are paths, which another process can open."""
    return all(isinstance(source, str | os.PathLike) for source in sources)


class Sources(NamedTuple):
    """What another process opens, once for all modules that it is given.

    Attributes
    ----------
    run : a name of the run, by which a thread knows what it has open
    folder : that paths are relative to; a process may be there from an earlier run in another
    base, delta : the two sides
    loading : how the adapter is read
    stamps : of the files of both sides, which have to be those that the first process has open
    """

    run: str
    folder: str
    base: Any
    delta: Any
    loading: Loading
    stamps: tuple[Stamp, ...]


# what this thread has opened for others, of one run at a time: dask gives a process several threads
_mine = threading.local()


def measured_by_path(sources: Sources, question: Question[R], module: str) -> Outcome:
    """Ask a question of one module of two sides that this thread opens by their paths, the first time.

    Raises
    ------
    FileError : the files are not those that the first process has open
    """
    if getattr(_mine, "run", None) != sources.run:
        _mine.sides = _opened_elsewhere(sources)
        _mine.run = sources.run
    sides: Opened = _mine.sides
    return sides.answer(question, module)


def _opened_elsewhere(sources: Sources) -> Opened:
    if str(Path.cwd()) != sources.folder:
        with suppress(OSError):  # of another machine
            os.chdir(sources.folder)
    sides = opened(sources.base, sources.delta, sources.loading)
    if sides.stamps() != sources.stamps:
        raise FileError(
            f"A file changed while it was being read: {place(sides.base.path)} or {place(sides.adapter.path)}; "
            "read them again when nothing writes to them"
        )
    return sides
