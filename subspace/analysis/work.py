"""The modules that a question is asked of, measured here or by several processes, with those of an earlier run."""

from __future__ import annotations

import pickle
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from subspace import __version__
from subspace.adapters.update import Update
from subspace.analysis.one_module import Opened, Outcome, Question, Sources, measured_by_path, on_disk
from subspace.analysis.resolve import Loading
from subspace.analysis.resume_file import ResumeFile
from subspace.analysis.workers import in_order
from subspace.errors import ValueRangeError
from subspace.results.row_text import to_text

__all__ = ["Work", "about"]

R = TypeVar("R")

_LITTLE = 2**21  # numbers of W in all, below which no question takes as long as a process to start
_MUCH = 2**28  # and above which every question takes longer
_START = 3.0  # seconds that processes take to start, with what that costs the others


@dataclass(frozen=True)
class Work(Generic[R]):
    """What is to be done, and by how many processes.

    Attributes
    ----------
    sides : the two sides, open in this process
    question : what is asked
    modules : of which modules, in the order of the results
    jobs : number of processes
    base, delta, loading : how another process opens the two sides

    Raises
    ------
    ValueRangeError : there is less than one job
    """

    sides: Opened
    question: Question[R]
    modules: Sequence[str]
    jobs: int
    base: Any
    delta: Any
    loading: Loading

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueRangeError(f"Too few processes: {self.jobs}; give `jobs` of at least 1")

    def outcomes(self, file: ResumeFile) -> Iterator[Outcome]:
        """Yield what is found in every module, in order, as it comes; what is new is noted in the file."""
        new = self._measured([module for module in self.modules if module not in file.known])
        for module in self.modules:
            if module in file.known:
                yield file.known[module]
            else:
                outcome = next(new)
                file.note(outcome)
                yield outcome

    def notes(self) -> tuple[str, ...]:
        """Why more processes than one were asked for and one did all."""
        if self.jobs == 1 or len(self.modules) == 1:
            return ()
        if not self._by_path:
            return (
                "One process did all the work, as only weights in files can be shared among several `jobs`",
            )
        if self._numbers(self.modules) < _LITTLE:
            return ("One process did all the work, which takes less time than starting several `jobs`",)
        return ()

    @property
    def _by_path(self) -> bool:
        return on_disk(self.base, self.delta)

    def _numbers(self, modules: Sequence[str]) -> int:
        return sum(_numbers(self.sides.adapter[module]) for module in modules)

    def _measured(self, modules: Sequence[str]) -> Iterator[Outcome]:
        here = partial(self.sides.answer, self.question)
        if self.jobs == 1 or not self._by_path or self._numbers(modules) < _LITTLE:
            yield from map(here, modules)
            return
        rest = list(modules)
        if self._numbers(modules) < _MUCH:  # the first module says how long one takes
            start = time.perf_counter()
            yield here(rest[0])
            each = (time.perf_counter() - start) / max(1, self._numbers(rest[:1]))
            rest = rest[1:]
            if each * self._numbers(rest) * (1 - 1 / self.jobs) < _START:
                yield from map(here, rest)
                return
        yield from in_order(partial(measured_by_path, self._sources(), self.question), rest, jobs=self.jobs)

    def _sources(self) -> Sources:
        here = self.base, self.delta, self.loading, self.sides.stamps()
        return Sources(secrets.token_hex(8), str(Path.cwd()), *here)


def _numbers(update: Update) -> int:
    return update.d_out * update.d_in


def about(sides: Opened, question: Question[Any], modules: Sequence[str]) -> Mapping[str, object]:
    """What the results of a run depend on, by a word for each, for a file that a later run goes on from."""
    return {
        "base": _identity(sides.base.tensors, sides.base.config),
        "adapter": _identity(sides.adapter.tensors, _as_read(sides)),
        "modules": _digest(list(modules)),
        "settings": _digest(_described(question.measure), question.device),
        "version of this package": __version__,
    }


def _as_read(sides: Opened) -> list[tuple[object, ...]]:
    """An adapter as its configuration and the keywords of loading have it."""
    return [
        (module, update.d_out, update.d_in, update.scale.value, update.scale.source, *update.flags)
        for module, update in sides.adapter.items()
    ]


def _identity(file: Any, more: object) -> str:
    """A digest of the sizes and times of files, or of the bytes of what is in memory."""
    if file is None:
        return _digest(more)
    stamps = [stamp[:2] for stamp in file.stamps()]
    return _digest(stamps or file.sha256(), more)


def _described(function: Any) -> object:
    """A function by its name, a `partial` by what it was given too, and any other value by all of its bits."""
    if isinstance(function, partial):
        named = [(name, _described(value)) for name, value in sorted(function.keywords.items())]
        return (_described(function.func), [*map(_described, function.args)], named)
    if callable(function) and hasattr(function, "__qualname__"):
        return f"{function.__module__}.{function.__qualname__}"
    try:
        return to_text(function)
    except TypeError:
        return pickle.dumps(function)


def _digest(*parts: object) -> str:
    import hashlib

    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()
