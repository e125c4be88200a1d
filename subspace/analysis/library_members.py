"""The adapters of a library, wherever they come from: files, tensors in memory, a collection, an index on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter
from subspace.analysis.adapter_sources import adapters_below
from subspace.analysis.adapters_in_memory import Adapters, Skipped, opened
from subspace.analysis.short_names import short_names
from subspace.flags import Flag, flag_notes
from subspace.results.library import LibraryAdapter
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.adapter_survey import Surveyed
    from subspace.analysis.collection import Collection
    from subspace.analysis.resolve import Loading
    from subspace.geometry.stacked_spans import Side

__all__ = ["Gathered", "Near", "gathered", "norms_of"]

# of single modules; an adapter is untrained where all of its modules are
_OF_ADAPTERS = (Flag.NOT_FINITE, Flag.NEEDS_BASE, Flag.SCALE_UNKNOWN, Flag.DENSE, Flag.COMPOSED, Flag.DORA)


@dataclass(frozen=True, eq=False)
class Gathered:
    """The adapters of a library.

    Attributes
    ----------
    collection : their modules
    adapters : what is known of each
    norms : of the whole delta_W of each; scales count as 1 where none is known, and there is none where some are
    skipped, notes : what could not be read, and what to know
    index, new : folder of the index, and how many adapters are new in it
    """

    collection: Collection
    adapters: tuple[LibraryAdapter, ...]
    norms: NDArray[np.float64]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    index: str | None = None
    new: int = 0


@dataclass(frozen=True)
class Near:
    """Which part of an index is compared: one adapter, by its path, and the `count` nearest to it on each side."""

    adapter: Any
    count: int
    sides: tuple[Side, ...]


def gathered(
    adapters: Any,
    loading: Loading,
    *,
    index: Any = None,
    near: Near | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Gathered:
    """Read, or look up, the adapters of a library.

    Parameters
    ----------
    adapters : a path, an adapter, several of them, a mapping of names to them, or a `Collection`
    loading : how each is read
    index : folder of an index, to which the adapters are added and whose members are the library; None without
    near : which of these; None for all
    progress : called with (adapters read, adapters in all)
    """
    if hasattr(adapters, "holders") and hasattr(adapters, "forms"):
        from subspace.analysis.library_index import of_collection

        return of_collection(adapters)
    sources, names, notes = _sources(adapters)
    if index is not None:
        from subspace.analysis.library_index import indexed

        return indexed(index, sources, loading, notes, progress, near)
    collection = opened(sources, loading, progress=progress)
    found = _described(collection, names)
    return Gathered(
        collection,
        found,
        _norms(collection),
        collection.skipped,
        (*notes, *collection.notes, *_flags(collection)),
    )


def _sources(adapters: Any) -> tuple[list[Any], list[str] | None, tuple[str, ...]]:
    """Sources of single adapters, their names where they were given, and notes on what lies in directories."""
    if isinstance(adapters, Mapping) and not isinstance(adapters, Adapter) and not _are_tensors(adapters):
        return [_text(each) for each in adapters.values()], [str(name) for name in adapters], ()
    single = isinstance(adapters, str | bytes | os.PathLike | Mapping) or hasattr(adapters, "state_dict")
    sources: list[Any] = []
    notes: list[str] = []
    for source in [adapters] if single or not isinstance(adapters, Iterable) else adapters:
        if not isinstance(source, str | os.PathLike):
            sources.append(source)
            continue
        found = adapters_below([source])
        sources += found.paths
        notes += found.notes
        if not found.paths:
            notes.append(f"No adapter in {shown(source)} or below it")
    return _once(sources), None, tuple(notes)


def _once(sources: list[Any]) -> list[Any]:
    """The sources without paths that are there already."""
    seen: set[str] = set()
    kept = []
    for source in sources:
        if isinstance(source, str):
            place = os.path.realpath(source)  # pathlib raises for names that the hub allows
            if place in seen:
                continue
            seen.add(place)
        kept.append(source)
    return kept


def _text(source: Any) -> Any:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else source


def _are_tensors(adapters: Mapping[Any, Any]) -> bool:
    return any(hasattr(value, "shape") for value in adapters.values())


def _described(collection: Adapters, names: list[str] | None) -> tuple[LibraryAdapter, ...]:
    short = short_names([each.member.path for each in collection.surveyed])
    if names is not None:
        short = [names[n] for n in collection.numbers]
    return tuple(
        LibraryAdapter(
            path=name if each.source is None else each.member.path,
            name=name,
            sha256=each.member.sha256,
            format=each.format,
            modules=len(own),
            rank=median(each.modules[stored].r for stored in own.values()) if own else None,
            step=each.member.step,
            flags=_flags_of(each),
        )
        for each, own, name in zip(collection.surveyed, collection.names, short, strict=True)
    )


def _flags_of(found: Surveyed) -> tuple[Flag, ...]:
    flags = {flag for module in found.modules.values() for flag in module.flags}
    whole = all(Flag.UNTRAINED in module.flags for module in found.modules.values())
    return tuple(
        flag
        for flag in Flag
        if flag in flags and (flag in _OF_ADAPTERS or (whole and flag is Flag.UNTRAINED))
    )


def _flags(collection: Adapters) -> tuple[str, ...]:
    """Notes on modules that are in no pair."""
    left_out = {
        f"{each.member.path}: {name}": tuple(
            f for f in module.flags if f in (Flag.NOT_FINITE, Flag.NEEDS_BASE)
        )
        for each in collection.surveyed
        for name, module in each.modules.items()
    }
    return flag_notes(left_out)


def _norms(collection: Adapters) -> NDArray[np.float64]:
    return np.array(
        [
            _norm(
                [each.modules[stored].norm for stored in own.values()],
                [each.modules[s].scale for s in own.values()],
            )
            for each, own in zip(collection.surveyed, collection.names, strict=True)
        ],
        dtype=np.float64,
    )


def _norm(norms: list[float], scales: list[float]) -> float:
    """Norm of all modules together."""
    known = np.array(scales, float)
    if np.isnan(known).all():
        known = np.ones(len(known))
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.sum((known * np.array(norms, float)) ** 2)))


def norms_of(collection: Collection) -> NDArray[np.float64]:
    """Norm of the whole delta_W of each member, from the singular values of its modules."""
    norms: list[list[float]] = [[] for _ in collection.members]
    scales: list[list[float]] = [[] for _ in collection.members]
    for module in collection.modules:
        numbers = collection.holders(module)
        forms = collection.forms(module, numbers)
        for number, form, scale in zip(numbers, forms, collection.scales(module), strict=True):
            norms[number].append(float(np.sqrt(np.sum(form.S**2))))
            scales[number].append(float(scale))
    return np.array([_norm(*pair) for pair in zip(norms, scales, strict=True)], dtype=np.float64)
