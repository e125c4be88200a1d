"""A library that is kept in an index on disk: what was read and compared once is read and compared no more."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.naming.sorting import in_order
from subspace.analysis.adapters_in_memory import Skipped
from subspace.analysis.all_pairs import AllPairs, SidePairs, all_pairs
from subspace.analysis.library_members import Gathered, norms_of
from subspace.analysis.short_names import short_names
from subspace.flags import Flag
from subspace.results.library import LibraryAdapter
from subspace.text import counted, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.collection import Collection, Member
    from subspace.analysis.resolve import Loading
    from subspace.geometry.canonical import Canonical
    from subspace.index import Index

__all__ = ["Comparable", "indexed", "kept_pairs", "of_collection"]

_AT_ONCE = 32  # adapters that are added between two reports of progress
_BATCH = 256  # new members whose pairs are kept together: what an interruption costs at most


@dataclass(eq=False)
class Comparable:
    """The modules of an index that can be compared, as a `Collection`: trained ones, those of one shape together.

    Attributes
    ----------
    index : where they are kept
    named : module -> (name in the index, numbers of its holders)
    notes : on shapes
    """

    index: Index
    named: Mapping[str, tuple[str, Sequence[int]]]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, index: Index) -> Comparable:
        """The comparable modules of an index."""
        named: dict[str, tuple[str, Sequence[int]]] = {}
        other: list[str] = []
        for module in index.modules:
            shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
            for number, facts in index.facts(module).items():
                if facts.k:
                    shapes[facts.d_out, facts.d_in].append(number)
            usual = max(shapes, key=lambda shape: len(shapes[shape]), default=None)
            for shape, numbers in shapes.items():
                name = module if shape == usual else f"{module} ({shape[0]} x {shape[1]})"
                named[name] = module, numbers
                other += [] if shape == usual else [name]
        notes = (
            (
                f"{counted(len(other), 'module')} of one name and another shape, as of another base, compared among "
                f"themselves only: {listed(other)}",
            )
            if other
            else ()
        )
        return cls(index, named, notes)

    @property
    def members(self) -> Sequence[Member]:
        """The adapters of the index."""
        return self.index.members

    @property
    def modules(self) -> Sequence[str]:
        """Modules that any of them has, trained, in natural order."""
        return in_order(self.named)

    def holders(self, module: str) -> Sequence[int]:
        """Return the numbers of the members that have a module."""
        return self.named[module][1]

    def scales(self, module: str) -> NDArray[np.float64]:
        """Return the scale of the module in each of its holders."""
        name, numbers = self.named[module]
        facts = self.index.facts(name)
        return np.array(
            [np.nan if facts[n].scale is None else facts[n].scale for n in numbers], dtype=np.float64
        )

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        """Return the canonical form of a module in some of its holders."""
        return self.index.forms(self.named[module][0], numbers)


def indexed(
    folder: Any,
    sources: Sequence[Any],
    loading: Loading,
    notes: tuple[str, ...],
    progress: Callable[[int, int], None] | None,
) -> Gathered:
    """The members of an index, once adapters were added to it."""
    from subspace.index import Index

    index = Index(folder)
    skipped: list[Skipped] = []
    reading = {name: value for name, value in vars(loading).items() if value is not None}
    for start in range(0, len(sources), _AT_ONCE):
        added = index.add(sources[start : start + _AT_ONCE], reading=reading, keep_going=True)
        skipped += [Skipped(path, why) for path, why in added.refused]
        notes = (*notes, *added.notes)
        if progress is not None:
            progress(min(start + _AT_ONCE, len(sources)), len(sources))
    found = of_collection(Comparable.of(index), notes=(*notes, *index.notes))
    return replace(found, skipped=tuple(skipped))


def of_collection(collection: Collection | Index, notes: tuple[str, ...] = ()) -> Gathered:
    """The adapters of a collection."""
    from subspace.index import Index

    if isinstance(collection, Index):
        return of_collection(Comparable.of(collection), notes)
    if isinstance(collection, Comparable):
        notes = (*notes, *collection.notes)
    counts = Counter(n for module in collection.modules for n in collection.holders(module))
    paths = [member.path for member in collection.members]
    formats, flags = _known(collection, len(paths))
    adapters = tuple(
        LibraryAdapter(
            path=member.path,
            name=name,
            sha256=member.sha256,
            format=formats[n],
            modules=counts[n],
            step=member.step,
            flags=flags[n] or (() if counts[n] else (Flag.UNTRAINED,)),
        )
        for n, (member, name) in enumerate(zip(collection.members, short_names(paths), strict=True))
    )
    return Gathered(collection, adapters, norms_of(collection), (), notes)


def _known(collection: Collection, n: int) -> tuple[list[str], list[tuple[Flag, ...]]]:
    """Format and flags of each member, where the collection knows them."""
    if not isinstance(collection, Comparable):
        return [""] * n, [()] * n
    index = collection.index
    found: list[set[Flag]] = [set() for _ in range(n)]
    for module in index.modules:
        for number, facts in index.facts(module).items():
            found[number] |= {
                Flag(flag) for flag in facts.flags if flag in {Flag.DENSE, Flag.COMPOSED, Flag.DORA}
            }
            if facts.scale is None and facts.k:
                found[number].add(Flag.SCALE_UNKNOWN)
    return index.formats, [tuple(flag for flag in Flag if flag in own) for own in found]


def kept_pairs(
    collection: Collection,
    settings: Mapping[str, Any],
    *,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> AllPairs:
    """All pairs of a collection; of an index only those are computed that it does not keep yet.

    Parameters
    ----------
    settings : keywords of `all_pairs`
    """
    if not isinstance(collection, Comparable) or settings["by"] != "total" or len(collection.members) < 2:
        return all_pairs(collection, **settings, jobs=jobs, progress=progress)
    kept = collection.index.pairs
    # controls depend on which modules there are
    key = {**settings, "modules": sorted(collection.modules), "layout": 1}
    while batches := kept.missing(key):
        batch = batches[0]
        if batch.block is None:
            batch = replace(batch, new=batch.new[:_BATCH])
        part = _Part(collection, sorted({*batch.old, *batch.new}))
        new = [part.numbers.index(n) for n in batch.new]
        found = all_pairs(part, **settings, new=new, jobs=jobs, progress=progress)
        kept.put(key, batch, _arrays(found, part, *batch.pairs()))
    read = kept.read(key)
    assert read is not None
    return _restored(collection, settings, read)


@dataclass(eq=False)
class _Part:
    """Some members of a collection, numbered anew."""

    collection: Collection
    numbers: Sequence[int]

    def __post_init__(self) -> None:
        self._places = {number: n for n, number in enumerate(self.numbers)}
        self._holders = {
            module: [self._places[n] for n in self.collection.holders(module) if n in self._places]
            for module in self.collection.modules
        }

    @property
    def members(self) -> Sequence[Member]:
        every = self.collection.members
        return [every[n] for n in self.numbers]

    @property
    def modules(self) -> Sequence[str]:
        return [module for module, holders in self._holders.items() if holders]

    def holders(self, module: str) -> Sequence[int]:
        return self._holders[module]

    def scales(self, module: str) -> NDArray[np.float64]:
        scales = dict(zip(self.collection.holders(module), self.collection.scales(module), strict=True))
        return np.array([scales[self.numbers[n]] for n in self._holders[module]], dtype=np.float64)

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        return self.collection.forms(module, [self.numbers[n] for n in numbers])


_WHOLE = ("modules", "cosine", "cosine_isotropic_sd", "z", "z_largest", "z_r")
_OF_SIDE = ("modules", "phi_full", "chance", "phi_control", "chordal", "projector", "geodesic")


def _arrays(
    found: AllPairs, part: _Part, earlier: NDArray[np.int64], new: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """The numbers of the pairs of a batch, in its order, by name."""
    first, second = (np.searchsorted(part.numbers, np.asarray(each)) for each in (earlier, new))
    low, high = np.minimum(first, second), np.maximum(first, second)
    n = len(part.numbers)
    keys = found.first.astype(np.int64) * n + found.second
    at = np.searchsorted(keys, low * n + high)
    arrays = {name: getattr(found, name) for name in _WHOLE}
    for side, each in found.sides.items():
        arrays |= {f"{side}.{name}": getattr(each, name) for name in _OF_SIDE}
        arrays |= {f"{side}.phi.{i}.{j}": values for (i, j), values in each.phi.items()}
        arrays |= {f"{side}.phi_chance.{i}.{j}": values for (i, j), values in each.phi_chance.items()}
    return {name: values[..., at] for name, values in arrays.items() if values is not None}


def _restored(collection: Comparable, settings: Mapping[str, Any], kept: Any) -> AllPairs:
    """All pairs as `all_pairs` would have found them."""
    order = np.lexsort((kept.second, kept.first))
    arrays = {name: np.asarray(values)[..., order] for name, values in kept.arrays.items()}
    sides = {side: _side(arrays, side) for side in settings["sides"]}
    return AllPairs(
        members=tuple(collection.members),
        by="total",
        groups=("total",),
        group_of=dict.fromkeys(collection.modules, 0),
        control_kinds={},
        first=kept.first[order].astype(np.int32),
        second=kept.second[order].astype(np.int32),
        sides=sides,
        **{name: arrays.get(name) for name in _WHOLE},
    )


def _side(arrays: Mapping[str, NDArray[Any]], side: str) -> SidePairs:
    def leading(name: str) -> dict[tuple[int, int], Any]:
        start = f"{side}.{name}."
        found = (key for key in arrays if key.startswith(start))
        return {(int(key.split(".")[-2]), int(key.split(".")[-1])): arrays[key] for key in found}

    names = {name: arrays.get(f"{side}.{name}") for name in _OF_SIDE}
    return SidePairs(**names, phi=leading("phi"), phi_chance=leading("phi_chance"))
