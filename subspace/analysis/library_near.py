"""The neighbourhood of one adapter in an index that is too large for all pairs: it, and what is nearest to it."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ValueRangeError
from subspace.index.neighbours import neighbours
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.canonical import Canonical
    from subspace.geometry.stacked_spans import Side
    from subspace.index import Index
    from subspace.index.collection import Member
    from subspace.index.entry import StoredModule

__all__ = ["Chosen", "neighbourhood"]


class Chosen:
    """Some members of an index, as a `Collection`.

    Parameters
    ----------
    index : Index
    numbers : of the members, ascending; here they count from 0
    """

    def __init__(self, index: Index, numbers: Sequence[int]) -> None:
        self._index, self._numbers = index, list(numbers)
        there = set(self._numbers)
        self._modules = [name for name in index.modules if not there.isdisjoint(index.holders(name))]

    @property
    def members(self) -> Sequence[Member]:
        """The adapters."""
        return [self._index.members[number] for number in self._numbers]

    @property
    def formats(self) -> list[str]:
        """Format of each."""
        return [self._index.formats[number] for number in self._numbers]

    @property
    def modules(self) -> Sequence[str]:
        """The modules that any of them has."""
        return self._modules

    def holders(self, module: str) -> Sequence[int]:
        """Return the numbers of those that have a module, ascending."""
        return list(self.facts(module))

    def scales(self, module: str) -> NDArray[np.float64]:
        """Return the scale of the module in each of its holders; NaN where it is unknown."""
        scales = (facts.scale for facts in self.facts(module).values())
        return np.array([np.nan if scale is None else scale for scale in scales], dtype=np.float64)

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        """Return the canonical form of a module in some of its holders."""
        return self._index.forms(module, [self._numbers[number] for number in numbers])

    def facts(self, module: str) -> Mapping[int, StoredModule]:
        """Return holder -> what is known of the module, as `Index.facts`."""
        return {
            place: facts
            for number, facts in self._index.facts(module).items()
            if (place := self._place(number)) is not None
        }

    def _place(self, number: int) -> int | None:
        place = bisect_left(self._numbers, number)
        return place if place < len(self._numbers) and self._numbers[place] == number else None


def neighbourhood(index: Index, adapter: Any, count: int, sides: Sequence[Side]) -> tuple[Chosen, str]:
    """One adapter of an index and the `count` nearest to it on each side, and a note that says so.

    Parameters
    ----------
    adapter : its path, or the end of it

    Raises
    ------
    ValueRangeError : the index has no such adapter, or several; or a count below 1

    Notes
    -----
    A sketch of every member makes a shortlist, which exact overlaps put in order, see `subspace.index.neighbours`: no
    more than that is read of the others.
    """
    number = _number(index, adapter)
    found = [neighbours(index, [number], k=count, side=side).nearest[0] for side in sides]
    numbers = sorted({number, *(int(n) for nearest in found for n in nearest if n >= 0)})
    others = counted(len(numbers) - 1, "adapter")
    note = (
        f"Of {len(index):,} adapters in the index only {shown(index.members[number].path)} and the {others} nearest to "
        f"it by phi of sides {listed(sides, most=4)} are compared; a sketch of each made the shortlist"
    )
    return Chosen(index, numbers), note


def _number(index: Index, adapter: Any) -> int:
    wanted = os.fspath(adapter).rstrip("/")
    paths = [member.path.rstrip("/") for member in index.members]
    place = os.path.realpath(wanted)  # pathlib raises for names that the hub allows
    found = [n for n, path in enumerate(paths) if place in (path, str(Path(path).parent)) or path == wanted]
    found = found or [n for n, path in enumerate(paths) if path.endswith(f"/{wanted}")]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} adapters of the index are called" if found else "No adapter of the index is called"
    names = listed([paths[n] for n in found] or paths, most=4)
    raise ValueRangeError(f"{what} {shown(repr(wanted))}; `near` is the path of one of {names}")
