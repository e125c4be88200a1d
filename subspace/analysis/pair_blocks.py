"""One block of all pairs: some modules of one panel of members with another, measured here or by another process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from subspace.adapters.naming.same_input import place_of
from subspace.geometry.all_pairs import ModulePairs, module_pairs, phi_between, phi_leading
from subspace.geometry.stacked_spans import Side, Spans, Stacked, stacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.collection import Collection
    from subspace.analysis.pair_plan import Crossing, Task
    from subspace.geometry.canonical import Canonical
    from subspace.geometry.lapack import Floats

__all__ = ["Asked", "Block", "Crossed", "Measured", "Sent", "measured"]

_ONE_A = 1e-5  # of its norm: two A's as near as this are one, stored twice in float32
_READS: tuple[Side, ...] = ("a", "right")


@dataclass(frozen=True)
class Asked:
    """What is measured of every pair.

    Attributes
    ----------
    sides : whose spans are compared
    leading : the (i, j) of phi(i, j), each with its mirror image (j, i)
    geodesic, cosine, z : whether these are wanted too
    precision : "float32" or "float64"
    """

    sides: tuple[Side, ...]
    leading: tuple[tuple[int, int], ...]
    geodesic: bool
    cosine: bool
    z: bool
    precision: Literal["float32", "float64"]


@dataclass(frozen=True, eq=False)
class Block:
    """The pairs of some members of one module.

    Attributes
    ----------
    module : its name
    rows, columns : numbers of the members
    same : whether rows and columns are one panel, so that every pair is there twice
    pairs : (rows, columns) of everything but phi(i, j)
    leading : (side, i, j) -> (rows, columns)
    repeated : (rows, columns), whether both members have the A of an earlier module of the same input; None if none has
    """

    module: str
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    same: bool
    pairs: ModulePairs
    leading: dict[tuple[Side, int, int], Floats]
    repeated: NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class Crossed:
    """Two modules of different jobs: the mean of phi(module of one, other of two) and phi(other of one, module of two).

    Attributes
    ----------
    crossing : which two modules, and whose control it is
    rows, columns, same : as of `Block`
    phi : side -> (rows, columns), NaN where neither exists
    """

    crossing: Crossing
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    same: bool
    phi: dict[Side, Floats]


Measured: TypeAlias = Block | Crossed


@dataclass(frozen=True, eq=False)
class Sent:
    """A Collection on its way to other processes, of which each goes on with the first that it gets.

    Attributes
    ----------
    question : different for every call, so that files that have changed meanwhile are opened again
    collection : the Collection, which opens nothing before it is asked
    """

    question: str
    collection: Collection


def measured(source: Sent | Collection, asked: Asked, task: Task) -> list[Measured]:
    """Measure the modules and the crossings of one task.

    Parameters
    ----------
    source : the Collection, or as it is sent to another process
    """
    collection = _opened(source) if isinstance(source, Sent) else source
    return list(_Panels(collection, asked, task).measured())


class _Known(threading.local):
    """The collection that a thread of a worker has open; threads share none, as files are not made for that."""

    question: str = ""
    collection: Collection | None = None


_known = _Known()


def _opened(sent: Sent) -> Collection:
    if _known.question != sent.question or _known.collection is None:
        _known.question, _known.collection = sent.question, sent.collection
    return _known.collection


@dataclass(frozen=True, eq=False)
class _Held:
    """A module of one panel, once its members have been compared: the stacks alone, in the type of the products."""

    numbers: NDArray[np.intp]
    sides: dict[Side, Spans]
    sketches: list[Floats | None]

    def spans(self, side: Side, numbers: NDArray[np.intp]) -> Spans:
        """The spans of some of the members."""
        return _chosen(self.sides[side], np.searchsorted(self.numbers, numbers))


@dataclass
class _Panels:
    """The modules of two panels of members, of which a few are held at a time."""

    collection: Collection
    asked: Asked
    task: Task
    held: dict[str, tuple[_Held, _Held]] = field(default_factory=dict)

    def measured(self) -> Iterator[Measured]:
        """Every module, and every crossing as soon as both of its modules are there."""
        done: set[str] = set()
        for module in self.task.modules:
            rows, columns = self._read(module)
            if len(rows) and len(columns):
                yield self._block(module, rows, columns)
            del rows, columns
            done.add(module)
            for crossing in self.task.crossings:
                if module in (crossing.module, crossing.other) and {crossing.module, crossing.other} <= done:
                    yield self._crossed(crossing)
            self._release(done)

    def _release(self, done: set[str]) -> None:
        """Forget the modules that nothing to come needs."""
        waiting = {place_of(m).input for m in self.task.modules if m not in done} - {None}
        for module in list(self.held):
            pairs = [{c.module, c.other} for c in self.task.crossings if module in (c.module, c.other)]
            if all(pair <= done for pair in pairs) and place_of(module).input not in waiting:
                del self.held[module]

    def _read(self, module: str) -> tuple[Stacked, Stacked]:
        """The members of both panels; their stacks are held."""
        holders = set(self.collection.holders(module))
        rows, held = self._panel(module, [m for m in self.task.rows if m in holders])
        if self.task.same:
            self.held[module] = held, held
            return rows, rows
        columns, others = self._panel(module, [m for m in self.task.columns if m in holders])
        self.held[module] = held, others
        return rows, columns

    def _panel(self, module: str, numbers: Sequence[int]) -> tuple[Stacked, _Held]:
        forms = self.collection.forms(module, numbers) if numbers else []
        shares = self.asked.z and place_of(module).input is not None
        sketches = [_sketch(form) if shares else None for form in forms]
        members = stacked(forms, precision=self.asked.precision)
        sides: dict[Side, Spans] = {side: members.spans(side) for side in self.asked.sides}
        return members, _Held(np.asarray(numbers, dtype=np.intp), sides, sketches)

    def _block(self, module: str, rows: Stacked, columns: Stacked) -> Block:
        asked, second = self.asked, None if self.task.same else columns
        pairs = module_pairs(
            rows,
            second,
            sides=asked.sides,
            geodesic=asked.sides if asked.geodesic else (),
            cosine=asked.cosine,
            z=asked.z,
        )
        leading = {
            (side, i, j): phi_leading(rows, second, side, i, j)
            for side in asked.sides
            for i, j in asked.leading
        }
        here, there = (each.numbers for each in self.held[module])
        return Block(module, here, there, self.task.same, pairs, leading, self._repeated(module))

    def _repeated(self, module: str) -> NDArray[np.bool_] | None:
        if not self.asked.z:
            return None
        rows, columns = self.held[module]
        found = np.zeros((len(rows.numbers), len(columns.numbers)), dtype=bool)
        for name, (one, other) in self.held.items():
            if name != module and place_of(name).input == place_of(module).input is not None:
                found |= np.logical_and.outer(_equal(rows, one), _equal(columns, other))
        return found if found.any() else None

    def _crossed(self, crossing: Crossing) -> Crossed:
        (rows, columns), (rows2, columns2) = self.held[crossing.module], self.held[crossing.other]
        numbers = (
            np.intersect1d(rows.numbers, rows2.numbers),
            np.intersect1d(columns.numbers, columns2.numbers),
        )
        wanted = [s for s in self.asked.sides if (crossing.reads if s in _READS else crossing.writes)]
        found: dict[Side, Floats] = {}
        known: dict[tuple[int, ...], Floats] = {}
        for side in wanted if all(map(len, numbers)) else ():
            key = tuple(id(each.sides[side]) for each in (rows, columns, rows2, columns2))
            if key not in known:
                there = phi_between(rows.spans(side, numbers[0]), columns2.spans(side, numbers[1]))
                known[key] = _mean(there, there.T if self.task.same else self._back(crossing, side, numbers))
            found[side] = known[key]
        return Crossed(crossing, *numbers, self.task.same, found)

    def _back(self, crossing: Crossing, side: Side, numbers: tuple[NDArray[np.intp], ...]) -> Floats:
        rows, columns = self.held[crossing.other][0], self.held[crossing.module][1]
        return phi_between(rows.spans(side, numbers[0]), columns.spans(side, numbers[1]))


def _chosen(spans: Spans, at: NDArray[np.intp]) -> Spans:
    if len(at) == len(spans.k):
        return spans
    bands = [slice(*spans.starts[m : m + 2]) for m in at.tolist()]
    starts = np.concatenate([[0], np.cumsum(spans.k[at])]).astype(np.intp)
    return Spans(np.concatenate([spans.X[:0], *(spans.X[band] for band in bands)]), starts)


def _mean(one: Floats, other: Floats) -> Floats:
    """The mean of two arrays; one of them alone where the other is NaN."""
    found: Floats = np.where(np.isnan(one), other, np.where(np.isnan(other), one, (one + other) / 2))
    return found


def _sketch(form: Canonical) -> Floats | None:
    """A times a fixed random vector: equal where A's are equal, and by nothing else."""
    if form.a is None:
        return None
    found: Floats = form.a @ (form.right @ _direction(form.right.shape[1]))
    return found


@lru_cache(maxsize=8)
def _direction(d: int) -> Floats:
    return np.random.default_rng(d).standard_normal(d)


def _equal(first: _Held, second: _Held) -> NDArray[np.bool_]:
    """Whether each of the first has the same A in both modules."""
    others: dict[int, Any] = dict(zip(second.numbers.tolist(), second.sketches, strict=True))
    pairs = [(mine, others.get(m)) for m, mine in zip(first.numbers.tolist(), first.sketches, strict=True)]
    return np.array([_near(one, other) for one, other in pairs], dtype=bool)


def _near(one: Floats | None, other: Floats | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(np.linalg.norm(one - other) <= _ONE_A * np.linalg.norm(one))
