"""From an opened file to an adapter: the format that fits is found, or several side by side, and reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters import formats
from subspace.adapters.adapter import JOINED, Adapter
from subspace.adapters.format import Ignored, Note, Reading, Role, Source
from subspace.adapters.naming.sorting import in_order
from subspace.errors import FormatError, UnrecognisedError
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile

__all__ = ["recognised"]


def recognised(source: Source) -> Adapter:
    """An opened file as an adapter: every format is asked, and one must fit, or several side by side.

    Raises
    ------
    UnrecognisedError : no format fits
    FormatError : several fit the same tensors, or the one that fits cannot read the file
    """
    if source.parts:
        return _joined(source)
    matching = formats.matching_formats(source)
    if len(matching) > 1:
        from subspace.adapters.mixture import mixed

        mixture = mixed(source, matching)
        if mixture is not None:
            return _adapter(source, *mixture)
        names = " or ".join(known.name for known in matching)
        raise FormatError(
            f"Cannot tell the format of {source.path}: it could be {names}; put the tensors of each into a file of "
            "its own"
        )
    if not matching:
        from subspace.adapters.formats import _unsupported as unsupported

        raise unsupported.refused(source) or UnrecognisedError(_unrecognised(source))
    return _adapter(source, matching[0].name, matching[0].read(source))


def _joined(source: Source) -> Adapter:
    """The adapters of several models inside one, whose modules have different names, as one adapter."""
    adapters = [
        recognised(replace(part, enabled=source.enabled, base=source.base, layout=source.layout))
        for part in source.parts
    ]
    updates = {module: update for adapter in adapters for module, update in adapter.items()}
    alike = [
        key for key, value in adapters[0].config.items() if all(a.config.get(key) == value for a in adapters)
    ]
    return Adapter(
        path=source.tensors.path,
        format=JOINED.join(sorted({name for adapter in adapters for name in adapter.formats})),
        container=source.tensors.container,
        updates={name: updates[name] for name in in_order(updates)},
        ignored=tuple(entry for adapter in adapters for entry in adapter.ignored) + source.ignored,
        unknown=tuple(key for adapter in adapters for key in adapter.unknown),
        notes=tuple(dict.fromkeys([*map(Note, source.notes), *(n for a in adapters for n in a.notes)])),
        config={key: adapters[0].config[key] for key in alike},
        tensors=source.tensors,
    )


def _unrecognised(source: Source) -> str:
    from subspace.adapters.formats._nearest import nearest

    names = ", ".join(known.name for known in formats.every())
    keys = [repr(shown(key, longest=80)) if key else "without a name" for key in source.tensors.layout]
    what = (
        f"no LoRA keys among {counted(len(keys), 'tensor')} ({listed(keys, most=4)})"
        if keys
        else "no tensors"
    )
    near = f", where {nearest(source.tensors.layout)}" if any(source.tensors.layout) else ""
    return (
        f"Not an adapter of a known format: {what}{near}, in {source.path}; for a full fine-tune give its base model "
        f"as `base` (the known formats are {names})"
    )


def _adapter(source: Source, name: str, reading: Reading) -> Adapter:
    by_name = {update.module: update for update in reading.updates}
    for update in reading.updates:
        if by_name[update.module] is not update:
            raise FormatError(
                f"Two updates of module {shown(update.module)} in {source.path}; take one of them out"
            )
    updates = {module: by_name[module] for module in in_order(by_name)}
    if not updates:
        raise FormatError(
            f"No updates in {source.path}: it has keys of the format {name} and no complete pair; the file is "
            "incomplete"
        )
    return Adapter(
        path=source.tensors.path,
        format=name,
        container=source.tensors.container,
        updates=updates,
        ignored=reading.ignored + source.ignored + tuple(_skipped(source.tensors)),
        unknown=reading.unknown,
        notes=tuple(
            note if isinstance(note, Note) else Note(note) for note in (*source.notes, *reading.notes)
        ),
        config=source.config or {},
        tensors=source.tensors,
    )


def _skipped(tensors: TensorFile) -> Iterator[Ignored]:
    """The entries of a file that were not read; a number or a text beside the tensors is no part of an adapter."""
    plain = {place.partition(".")[0] for place in tensors.settings}
    for key, why in tensors.skipped.items():
        yield Ignored(key, why, Role.COPY if key in plain else Role.TRAINED)
