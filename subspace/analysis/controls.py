"""Matched controls of a comparison: pairs of modules of the same two adapters that differ from a module in their job.

Two adapters of one base overlap more than random spans whatever they were trained on, since their modules read the same
inputs. The same-input control takes that out: the first adapter's q against the second's k or v of the same layer. The
layers control is of the same kind of module in other layers, which read other inputs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from subspace.adapters.naming.same_input import place_of
from subspace.analysis.control_pairs import Crossed, averaged, crossed
from subspace.analysis.frames import reads_input
from subspace.analysis.layers import Layers
from subspace.analysis.shared_counts import shared_dimensions
from subspace.errors import ValueRangeError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.agreement import Agreement
    from subspace.geometry.frame import Frame
    from subspace.results.nulls import Control

__all__ = ["CONTROLS", "Controls", "Matched", "kinds_of"]

CONTROLS = ("none", "same-input", "layers", "all")
_MOST = 1024  # directions; with more of them a control would cost more than the comparison

Kind: TypeAlias = Literal["same_input", "layers"]
Key: TypeAlias = tuple[str, str, str]  # module, side, init

_KINDS: dict[str, tuple[Kind, ...]] = {
    "none": (),
    "same-input": ("same_input",),
    "layers": ("layers",),
    "all": ("same_input", "layers"),
}


def kinds_of(controls: str) -> tuple[Kind, ...]:
    """The kinds of controls that a word of `CONTROLS` asks for.

    Raises
    ------
    ValueRangeError : it is none of them
    """
    if controls not in _KINDS:
        raise ValueRangeError(
            f"Unknown controls {shown(repr(controls))}: `controls` is one of {', '.join(CONTROLS)}"
        )
    return _KINDS[controls]


class Matched(NamedTuple):
    """The controls of one row, the closest match first, and the mean phi(i, j) of the first of them."""

    controls: tuple[Control, ...] = ()
    grid: NDArray[np.float64] | None = None


class _Seen(NamedTuple):
    """One side of one module while its frames are in memory."""

    module: str
    first: Frame
    second: Frame


class Controls:
    """Collects the controls while the modules of a comparison go by; the frames of a few modules are held at once.

    Parameters
    ----------
    modules : names of the modules of the comparison
    kinds : which controls are wanted

    Notes
    -----
    Pairs of the layers control are those of neighbouring layers, in both directions; its phi(1, 1) is over all pairs of
    layers, from one product of all leading directions.
    """

    def __init__(self, modules: Sequence[str], kinds: Sequence[Kind]) -> None:
        self.modules, self.kinds = modules, kinds
        self.places = {module: place_of(module) for module in modules}
        self.layers = Layers()
        self._readers = Counter(place.input for place in self.places.values())
        self._held: dict[Hashable, list[_Seen]] = defaultdict(list)
        self._pairs: dict[tuple[Key, Kind], list[Crossed]] = defaultdict(list)

    def in_order(self) -> Iterator[int]:
        """Numbers of the modules: those that read one input follow one another, else the order is as given."""
        found: dict[Hashable, list[int]] = {}
        for n, module in enumerate(self.modules):
            found.setdefault(self.places[module].input or n, []).append(n)
        for members in found.values():
            yield from members

    def add(self, module: str, side: str, init: str, found: Agreement) -> None:
        """Take in one side of a module; its frames are let go as soon as no other module needs them."""
        if not found.phi.size or max(found.phi.shape) > _MOST:
            return
        seen, place = _Seen(module, found.first, found.second), self.places[module]
        if (
            "same_input" in self.kinds
            and reads_input(side)
            and self._readers[place.input] > 1
            and place.input
        ):
            held = self._held["same_input", side, init]
            if held and self.places[held[0].module].input != place.input:
                held.clear()
            self._cross(seen, held, "same_input", side, init)
            held.append(seen)
        if "layers" in self.kinds:
            held = self._held["layers", side, init, place.kind]
            self._cross(seen, held, "layers", side, init)
            held[:] = [seen]
            self.layers.add(place.kind, (module, side, init), found)

    def _cross(self, seen: _Seen, held: Sequence[_Seen], kind: Kind, side: str, init: str) -> None:
        """Measure both pairs that a module makes with each that is held; each pair is a control of both modules."""
        for other in held:
            if seen.first.d != other.first.d:
                continue
            for first, second in ((seen.first, other.second), (other.first, seen.second)):
                pair = crossed(first, second)
                for module in (seen.module, other.module):
                    self._pairs[(module, side, init), kind].append(pair)

    def matched(self, level: float) -> dict[Key, Matched]:
        """The controls of every row that has any.

        Parameters
        ----------
        level : of the test of one pair
        """
        pairs = {id(pair): pair for each in self._pairs.values() for pair in each}
        counts = shared_dimensions([(p.cos2, *p.phi.shape, p.d) for p in pairs.values()], level)
        shared = dict(zip(pairs, counts, strict=True))
        leading = self.layers.off_diagonal()
        found: dict[Key, dict[Kind, Control]] = defaultdict(dict)
        for (key, kind), each in self._pairs.items():
            more = leading.get(key) if kind == "layers" else None
            found[key][kind] = averaged(kind, each, [shared[id(pair)] for pair in each], leading=more)
        return {
            key: Matched(tuple(each[kind] for kind in self.kinds if kind in each), self._grid(key))
            for key, each in found.items()
        }

    def _grid(self, key: Key) -> NDArray[np.float64] | None:
        """The mean grid over the pairs of the first kind; None where their ranks differ."""
        pairs = next(self._pairs[key, kind] for kind in self.kinds if (key, kind) in self._pairs)
        if len({pair.phi.shape for pair in pairs}) > 1:
            return None
        return np.asarray(np.mean([pair.phi for pair in pairs], axis=0, dtype=np.float64))
