"""Matched controls along a run: the checkpoints of a module against those of modules that differ from it in their job.

As those of `analysis.controls`: modules that read the same input, on sides a and right; otherwise modules of the same
kind in the layers before and after.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from subspace.adapters.naming.same_input import place_of
from subspace.analysis.frames import reads_input
from subspace.geometry.trajectory import phi_along

if TYPE_CHECKING:
    from subspace.analysis.controls import Kind
    from subspace.analysis.module_steps import Key, SidePath
    from subspace.geometry.lapack import Floats

__all__ = ["StepControl", "StepControls", "similarities"]


class Similarities(NamedTuple):
    """phi of every checkpoint with the last, with the next, and with the start; (T,) each, NaN where there is none."""

    to_final: Floats
    to_next: Floats
    from_start: Floats


class StepControl(NamedTuple):
    """The control of one side of a module: its kind, and the mean over its pairs."""

    kind: Kind
    mean: Similarities


_Row: TypeAlias = "tuple[str, str, str]"  # module, side, init


def similarities(one: SidePath, other: SidePath) -> Similarities:
    """Similarities of every checkpoint of a path with the last, the next and the start of another, or of itself."""
    to_next = np.full(len(one.counts), np.nan)
    to_next[:-1] = phi_along(one.path[:-1], one.counts[:-1], other.path[1:], other.counts[1:])
    return Similarities(
        phi_along(one.path, one.counts, other.path[-1:], other.counts[-1:]),
        to_next,
        phi_along(one.path, one.counts, other.start, other.start_counts),
    )


class StepControls:
    """Collects the controls while the modules of a run go by; the paths of a few are held, in float32.

    Parameters
    ----------
    modules : names of the modules
    kinds : which controls are wanted
    """

    def __init__(self, modules: Sequence[str], kinds: Sequence[Kind]) -> None:
        self.modules, self.kinds = modules, kinds
        self.places = {module: place_of(module) for module in modules}
        self._readers = Counter(place.input for place in self.places.values() if place.input)
        self._held: dict[Hashable, list[tuple[str, SidePath]]] = defaultdict(list)
        self._pairs: dict[_Row, list[tuple[Kind, Similarities]]] = defaultdict(list)

    def in_order(self) -> Iterator[str]:
        """The modules: those that read one input follow one another, else the order is as given."""
        found: dict[Hashable, list[str]] = {}
        for n, module in enumerate(self.modules):
            found.setdefault(self.places[module].input or n, []).append(module)
        for members in found.values():
            yield from members

    def add(self, module: str, sides: Mapping[Key, SidePath]) -> None:
        """Take in a module; `sides` has its leading directions."""
        for (side, init), path in sides.items():
            if not path.leading:
                continue
            kind = self._kind(module, side)
            if kind is None:
                continue
            place = self.places[module]
            held = self._held[kind, side, init, place.input if kind == "same_input" else place.kind]
            own = path.cut(np.float32)
            for other, theirs in held:
                self._cross((module, own), (other, theirs), kind, (side, init))
            # of the layers the one before, of one input all of them until the next input
            held[:] = [(module, own)] if kind == "layers" else [*held, (module, own)]
            if kind == "same_input":
                self._let_go(side, init, place.input)

    def _kind(self, module: str, side: str) -> Kind | None:
        shared = reads_input(side) and self._readers[self.places[module].input or ""] > 1
        if shared and "same_input" in self.kinds:
            return "same_input"
        return "layers" if "layers" in self.kinds else None

    def _let_go(self, side: str, init: str, input: str | None) -> None:
        for key in [k for k in self._held if isinstance(k, tuple) and k[:3] == ("same_input", side, init)]:
            if isinstance(key, tuple) and key[3] != input:
                del self._held[key]

    def _cross(self, one: tuple[str, SidePath], other: tuple[str, SidePath], kind: Kind, key: Key) -> None:
        """Measure both pairs that two modules make; each is a control of both."""
        if one[1].d != other[1].d or len(one[1].counts) != len(other[1].counts):
            return
        found = similarities(one[1], other[1]), similarities(other[1], one[1])
        for module in (one[0], other[0]):
            self._pairs[(module, *key)] += [(kind, each) for each in found]

    def of(self, module: str, side: str, init: str) -> StepControl | None:
        """The control of one side of a module, once all modules went by; None without one."""
        pairs = self._pairs.get((module, side, init))
        if not pairs:
            return None
        stacked = [np.stack(values) for values in zip(*(found for _, found in pairs), strict=True)]
        return StepControl(pairs[0][0], Similarities(*map(mean_of, stacked)))


def mean_of(values: Floats) -> Floats:
    """Mean over the first axis of the values that exist; NaN where none does.

    Examples
    --------
    >>> mean_of(np.array([[1.0, np.nan], [3.0, np.nan]]))
    array([ 2., nan])
    """
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        counts = np.where(there.any(axis=0), there.sum(axis=0), np.nan)
        return np.asarray(np.where(there, values, 0.0).sum(axis=0) / counts)
