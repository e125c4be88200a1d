"""All pairs of the members of an index: those that it keeps are read, the others are computed and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from subspace.analysis.all_pairs import _groups, all_pairs
from subspace.analysis.pair_plan import Crossing, crossings_of
from subspace.analysis.pair_results import AllPairs, By, SidePairs
from subspace.errors import FileError
from subspace.index.batches import Batch
from subspace.index.entry import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.canonical import Canonical
    from subspace.geometry.stacked_spans import Side
    from subspace.index.batches import PairArrays
    from subspace.index.collection import Collection, Member
    from subspace.index.index import Index

__all__ = ["Part", "indexed_pairs"]

_AT_ONCE = 512  # new members in a block: what is lost when the work is cut off
_TRIES = 5  # times that another process may be faster
_VERSION = 1  # of what the arrays mean
_OF_PAIRS = ("modules", "cosine", "cosine_isotropic_sd", "z", "z_largest", "z_r")


def indexed_pairs(
    index: Index,
    *,
    by: By = "total",
    sides: Sequence[Side] = ("a", "b"),
    leading: Sequence[tuple[int, int]] = (),
    controls: str = "all",
    geodesic: bool = False,
    cosine: bool = True,
    z: bool = True,
    jobs: int = 1,
    precision: Literal["float32", "float64"] = "float32",
    panel: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> AllPairs:
    """Compare all pairs of the members of an index, as `all_pairs` does, and keep what is computed in the index.

    Parameters
    ----------
    index : Index
    by, sides, leading, controls, geodesic, cosine, z, jobs, precision, panel : as of `all_pairs`
    progress : callable, optional
        Called with the number of tasks that are done, and of all tasks, of each block.

    Raises
    ------
    FileError
        If the index cannot be read or written, or other processes kept adding to it.

    Notes
    -----
    Adding one member to N costs N pairs of work and of bytes. Numbers are kept in the type of `precision`. What is
    kept is used for the same modules and controls alone: a member that brings a module which is new changes the
    controls of others, and all pairs are computed anew.
    """
    options: dict[str, Any] = {
        "by": by, "sides": list(dict.fromkeys(sides)), "leading": sorted({*leading}), "controls": controls,
        "geodesic": geodesic, "cosine": cosine, "z": z, "precision": precision,
    }  # fmt: skip
    plan, kept = _Plan.of(index, controls), index.pairs
    settings = {"all_pairs": _VERSION, **options, "plan": plan.digest}
    overtaken = 0
    while missing := kept.missing(settings):
        batch = _smaller(missing[0], plan)
        found = all_pairs(
            Part(index, (*batch.old, *batch.new)), **options, jobs=jobs, panel=panel, progress=progress,
            new=range(len(batch.old), len(batch.old) + len(batch.new)),
        )  # fmt: skip
        numbers = np.array([*batch.old, *batch.new], np.intp)
        arrays = _arrays(found, _groups(index.modules, by)[0], np.dtype(precision))
        if not kept.put(settings, batch, numbers[found.first], numbers[found.second], arrays):
            overtaken += 1
        if overtaken > _TRIES:
            raise FileError("Other processes keep adding pairs to the index; try again when they are done")
    return _result(index, by, plan, kept.read(settings))


@dataclass(frozen=True)
class Part:
    """Some members of a collection as a collection of its own: numbers count from 0 again."""

    whole: Collection
    numbers: tuple[int, ...]

    @property
    def members(self) -> Sequence[Member]:
        """The members, in the order of `numbers`."""
        return [self.whole.members[number] for number in self.numbers]

    @property
    def modules(self) -> Sequence[str]:
        """The modules that any of them has."""
        return [module for module in self.whole.modules if self.holders(module)]

    def holders(self, module: str) -> Sequence[int]:
        """Return the places in `numbers` of those that have a module."""
        there = set(self.whole.holders(module))
        return [place for place, number in enumerate(self.numbers) if number in there]

    def scales(self, module: str) -> NDArray[np.float64]:
        """Return the scale of the module in each of its holders."""
        place = {number: n for n, number in enumerate(self.whole.holders(module))}
        scales = self.whole.scales(module)
        return scales[[place[self.numbers[n]] for n in self.holders(module)]]

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        """Return the canonical form of a module in some of its holders."""
        return self.whole.forms(module, [self.numbers[number] for number in numbers])


@dataclass(frozen=True)
class _Plan:
    """What the numbers of a pair depend on beside the two members: which modules are whose controls."""

    shapes: Mapping[str, tuple[int, int]]
    holders: Mapping[str, Sequence[int]]
    controls: str
    crossings: tuple[Crossing, ...]

    @classmethod
    def of(cls, index: Index, controls: str) -> _Plan:
        shapes = index.shapes
        holders = {module: index.holders(module) for module in shapes}
        return cls(shapes, holders, controls, crossings_of(shapes, holders, controls))

    @property
    def digest(self) -> str:
        """A name for it."""
        return digest([sorted(self.shapes.items()), [[*vars(each).values()] for each in self.crossings]])

    def holds_among(self, numbers: Sequence[int]) -> bool:
        """Whether the controls among some members are those that they have among all."""
        some = set(numbers)
        holders = {module: [n for n in each if n in some] for module, each in self.holders.items()}
        there = {module: shape for module, shape in self.shapes.items() if holders[module]}
        wanted = tuple(each for each in self.crossings if each.module in there and each.other in there)
        return crossings_of(there, holders, self.controls) == wanted


def _smaller(batch: Batch, plan: _Plan) -> Batch:
    """A part of a batch that is not much to lose, unless its members would have other controls among themselves."""
    part = batch.leading(_AT_ONCE)
    return part if part is batch or plan.holds_among((*part.old, *part.new)) else batch


def _arrays(found: AllPairs, groups: Sequence[str], dtype: np.dtype[Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a result by flat names, with rows for all of `groups`, numbers as `dtype`."""
    arrays = {name: getattr(found, name) for name in _OF_PAIRS}
    for side, of_side in found.sides.items():
        for field in fields(SidePairs):
            value = getattr(of_side, field.name)
            each = value if isinstance(value, dict) else {(): value}
            arrays |= {".".join(map(str, (side, field.name, *key))): array for key, array in each.items()}
    at = [groups.index(group) for group in found.groups]
    return {
        name: _placed(array.astype(dtype) if array.dtype.kind == "f" else array, at, len(groups))
        for name, array in arrays.items()
        if array is not None
    }


def _placed(array: NDArray[Any], at: Sequence[int], count: int) -> NDArray[Any]:
    """Rows of groups that some members have, among those of all; a pair has no number in the others."""
    whole = np.full((count, array.shape[-1]), np.nan if array.dtype.kind == "f" else 0, array.dtype)
    whole[list(at)] = array
    return whole


def _result(index: Index, by: By, plan: _Plan, kept: PairArrays | None) -> AllPairs:
    """Kept arrays as a result, in the order of all pairs."""
    groups, group_of = _groups(index.modules, by)
    none = np.empty(0, np.int64)
    first, second = (none, none) if kept is None else (kept.first, kept.second)
    order = np.lexsort((second, first))
    arrays: dict[str, Any] = {
        name: _wide(array[..., order]) for name, array in (kept.arrays if kept else {}).items()
    }
    return AllPairs(
        members=tuple(index.members),
        by=by,
        groups=groups,
        group_of=group_of,
        control_kinds={module: each.kind for each in plan.crossings for module in each.reads},
        first=first[order].astype(np.int32),
        second=second[order].astype(np.int32),
        sides=_sides(arrays),
        **{name: arrays.get(name) for name in _OF_PAIRS},  # type: ignore[arg-type]
    )


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _sides(arrays: Mapping[str, NDArray[Any]]) -> dict[Side, SidePairs]:
    found: dict[Any, dict[str, Any]] = {}
    for name, array in arrays.items():
        side, dot, rest = name.partition(".")
        if not dot:
            continue
        of_side = found.setdefault(side, {"phi": {}, "phi_chance": {}, "geodesic": None})
        field, _, key = rest.partition(".")
        if key:
            i, j = map(int, key.split("."))
            of_side[field][i, j] = array
        else:
            of_side[field] = array
    return {side: SidePairs(**each) for side, each in found.items()}
