"""A file in which several formats stand side by side: read as the sum of its parts, where these have nothing in common.

Such as a text encoder in kohya's keys beside a transformer in those of PEFT: programs that load both write both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from subspace.adapters.adapter import JOINED
from subspace.adapters.format import Format, Ignored, Note, Reading, Source
from subspace.adapters.naming.flattened import Flattened
from subspace.errors import FormatError, ShapeError, SubspaceError
from subspace.flags import Flag
from subspace.text import counted

__all__ = ["mixed"]

# first words that one model has in one library and not, or another, in the next
_MODEL = ("unet.", "transformer.", "diffusion_model.", "model.")


def mixed(source: Source, matching: Sequence[Format]) -> tuple[str, Reading] | None:
    """The name of a mixture of formats, such as "kohya + peft", and what all of them read.

    Parameters
    ----------
    source : a file that several formats claim
    matching : those formats

    Returns
    -------
    tuple of str and Reading, or None
        None where a tensor would be read by two of them, one of them cannot read the file, or two modules of different
        formats may be the same.
    """
    parts = _readings(source, matching)
    if parts is None or not all(part.updates for part in parts.values()):
        return None
    used = {name: _used(part, source) for name, part in parts.items()}
    read = set().union(*used.values())
    if len(read) < sum(map(len, used.values())) or _clash(parts):
        return None
    updates = tuple(update for part in parts.values() for update in part.updates)
    ignored, unknown = _others(parts, read, source)
    return JOINED.join(sorted(parts)), Reading(updates, ignored, unknown, _notes(parts))


def _readings(source: Source, matching: Sequence[Format]) -> dict[str, Reading] | None:
    """What each format reads of the whole file, or else of what the others leave; None where one cannot read that."""
    parts: dict[str, Reading] = {}
    failed: list[Format] = []
    for known in matching:
        try:
            parts[known.name] = known.read(source)
        except (FormatError, ShapeError):
            failed.append(known)
    if len(failed) > 1:
        return None
    for known in failed:
        taken = set().union(*(_used(part, source) for part in parts.values()))
        try:
            parts[known.name] = known.read(_without(taken, source))
        except SubspaceError:
            return None
    return parts


def _without(taken: set[str], source: Source) -> Source:
    from subspace.checkpoints.view import TensorView

    left = {key: key for key in source.tensors.layout if key not in taken}
    return replace(source, tensors=TensorView(source.tensors, left))


def _used(part: Reading, source: Source) -> set[str]:
    return set(source.tensors.layout) - {item.key for item in part.ignored} - set(part.unknown)


def _clash(parts: Mapping[str, Reading]) -> bool:
    """Whether a module of one format may be a module of another, as its name or its flattened name says."""
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for update in part.updates:
            if seen.setdefault(_plain(update.module), name) != name:
                return True
    modules = {name: [update.module for update in part.updates] for name, part in parts.items()}
    for name, own in modules.items():
        others = Flattened(module for other, its in modules.items() if other != name for module in its)
        if any(others.same(module) for module in own):
            return True
    return False


def _plain(module: str) -> str:
    for first in _MODEL:
        module = module.removeprefix(first)
    return module


def _others(
    parts: Mapping[str, Reading], read: set[str], source: Source
) -> tuple[tuple[Ignored, ...], tuple[str, ...]]:
    """The tensors that no format reads: those that one of them knows, and the rest."""
    known = {item.key: item for part in reversed(list(parts.values())) for item in part.ignored}
    left = [key for key in source.tensors.layout if key not in read]
    return tuple(known[key] for key in left if key in known), tuple(key for key in left if key not in known)


def _notes(parts: Mapping[str, Reading]) -> tuple[str, ...]:
    """That the file is a mixture, and the notes of all parts, once."""
    counts = " and ".join(
        f"{counted(len(part.updates), 'module')} as {name}" for name, part in sorted(parts.items())
    )
    notes = [_of_part(note, name) for name, part in parts.items() for note in part.notes]
    return tuple(dict.fromkeys([Note(f"The file mixes formats, each of which is read: {counts}"), *notes]))


def _of_part(note: str, name: str) -> str:
    """A note on an unknown scale with the format whose modules it is about; any other as it is."""
    if isinstance(note, Note) and note.flag is Flag.SCALE_UNKNOWN:
        return Note(f"In the modules of {name}, {note[0].lower()}{note[1:]}", note.flag)
    return note
