"""Adding adapters to an index: their canonical forms to a file, then their rows in one transaction."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.adapter import Adapter
from subspace.adapters.load import load_adapter
from subspace.adapters.naming.matching import match_modules
from subspace.adapters.update import LowRankUpdate, Update
from subspace.checkpoints.atomic_writing import write_whole
from subspace.errors import InconclusiveError, SubspaceError, ValueRangeError, located
from subspace.index import manifest
from subspace.index.entry import Entry, StoredModule, key_of
from subspace.index.shard import place, read_shard, shard_bytes
from subspace.index.update_form import form_of
from subspace.text import listed, shown

if TYPE_CHECKING:
    from subspace.geometry.canonical import Canonical
    from subspace.index.database import Database

__all__ = ["Added", "Prepared", "add_adapters", "matched_names", "prepared", "put_named", "step_in"]

_AT_ONCE = 64  # adapters whose rows are written in one transaction
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")


@dataclass
class Added:
    """What adding did.

    Attributes
    ----------
    new : ids of the members that are new, in the order of the adapters
    known : paths that were in the index with the same content
    refused : (path, why) of adapters that could not be read, where that was to be passed over
    notes : sentences for the user
    """

    new: list[int] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Written:
    """An adapter whose file is in its place, and whose rows are not; `write` writes the file anew."""

    entry: Entry
    facts: dict[str, Any]
    write: Callable[[], Entry]


def add_adapters(
    folder: Path,
    database: Database,
    adapters: Iterable[Any],
    *,
    reading: Mapping[str, Any],
    names: Mapping[str, str] | None = None,
    step: int | None = None,
    keep_going: bool = False,
) -> Added:
    """Add adapters; parameters as of `Index.add`."""
    done, waiting = Added(), list[_Written]()
    for source in adapters:
        try:
            adapter = _opened(source, reading)
            waiting.append(_written(folder, database, prepared(folder, adapter, reading, step, done.notes)))
        except SubspaceError as error:
            if not keep_going:
                _commit(folder, database, waiting, names, done)
                raise
            done.refused.append((getattr(source, "path", None) or os.fsdecode(source), str(error)))
        if len(waiting) >= _AT_ONCE:
            _commit(folder, database, waiting, names, done)
    _commit(folder, database, waiting, names, done)
    return done


def _opened(source: Any, reading: Mapping[str, Any]) -> Adapter:
    """An adapter, read with the options where it is not one already."""
    return source if isinstance(source, Adapter) else load_adapter(source, **reading)


def step_in(path: str) -> int | None:
    """The step in the name of the folder of a checkpoint, as trainers write it.

    Examples
    --------
    >>> step_in("run/checkpoint-500/adapter_model.safetensors"), step_in("run/final/adapter_model.safetensors")
    (500, None)
    """
    match = _CHECKPOINT.fullmatch(Path(path).parent.name)
    return None if match is None else int(match[1])


@dataclass(frozen=True)
class Prepared:
    """An adapter that was opened: the key that it has, and how its file is written."""

    key: str
    facts: dict[str, Any]
    write: Callable[[], Entry]


def prepared(
    folder: Path, adapter: Adapter, reading: Mapping[str, Any], step: int | None, notes: list[str]
) -> Prepared:
    """The key of an adapter, from its bytes and its header; its numbers are read when its file is written."""
    identity = _identity(adapter)
    facts = _facts(adapter, identity, reading, step)
    key = key_of(identity, reading, [_as_read(update) for update in adapter.values()])

    def write() -> Entry:
        entry, forms = _forms(adapter, key, notes)
        entry = replace(entry, sha256=None if adapter.container == "memory" else identity)
        content, entry = shard_bytes(entry, forms, facts)
        write_whole({place(folder, "adapters", key): content})
        adapter.release()
        return entry

    return Prepared(key, facts, write)


def _written(folder: Path, database: Database, found: Prepared) -> _Written:
    """An adapter with its file in place: the one that is there already, where it is whole."""
    entry = _known(database, found.key) or _left_there(place(folder, "adapters", found.key)) or found.write()
    return _Written(entry, found.facts, found.write)


def _left_there(path: Path) -> Entry | None:
    """The entry of a file without rows, of a writer that was killed before them, or is about to write them."""
    if not path.exists():
        return None
    try:
        return read_shard(path)[0]
    except SubspaceError:
        return None


def _known(database: Database, key: str) -> Entry | None:
    with database.reading() as connection:
        try:
            found = manifest.entry_of(connection, key)
        except ValueError:
            return None
    return None if found is None else found[0]


def _forms(adapter: Adapter, key: str, notes: list[str]) -> tuple[Entry, list[Canonical]]:
    modules, forms, left_out = [], [], []
    for update in adapter.values():
        try:
            form = form_of(update)
        except (ValueRangeError, InconclusiveError):
            left_out.append(update.module)
            continue
        forms.append(form)
        modules.append(_stored(update, form))
    if left_out:
        notes.append(
            f"Left out of {shown(adapter.path)}, since their numbers are not finite or need the base: "
            f"{listed(left_out)}"
        )
    if not forms:
        with located(shown(adapter.path)):
            raise InconclusiveError(
                "No module to index: every one has numbers that are not finite; train it again"
            )
    return Entry(key, None, 0, 0, adapter.format, _base(adapter), tuple(modules)), forms


def _stored(update: Update, form: Canonical) -> StoredModule:
    return StoredModule(
        stored=update.module, kind=update.kind, r=update.r, d_in=update.d_in, d_out=update.d_out,
        k_in=len(form.right), k_out=len(form.left), k=form.k, factored=form.a is not None,
        scale=None if update.scale.value is None else float(update.scale.value),
        flags=tuple(str(flag) for flag in update.flags),
    )  # fmt: skip


def _as_read(update: Update) -> list[Any]:
    rows = None if update.rows is None else list(update.rows)
    return [update.module, update.kind, update.r, update.d_in, update.d_out, rows, update.scale.value]


def _identity(adapter: Adapter) -> str:
    """SHA-256 of the file of weights, or of all factors of tensors in memory."""
    found = adapter.sha256()
    if found is not None:
        return found
    sha = sha256()
    for update in adapter.values():
        for M in (update.A, update.B) if isinstance(update, LowRankUpdate) else (update.matrix.load(),):
            sha.update(np.ascontiguousarray(M, np.float64).tobytes())
    return sha.hexdigest()


def _facts(adapter: Adapter, identity: str, reading: Mapping[str, Any], step: int | None) -> dict[str, Any]:
    return {
        "path": adapter.path,
        "source": f"memory:{identity}" if adapter.container == "memory" else os.path.abspath(adapter.path),  # noqa: PTH100
        "reading": json.dumps(dict(reading), sort_keys=True),
        "step": step_in(adapter.path) if step is None else step,
    }


def _base(adapter: Adapter) -> str | None:
    name = adapter.config.get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def _commit(
    folder: Path, database: Database, waiting: list[_Written], names: Mapping[str, str] | None, done: Added
) -> None:
    """Write the rows of all that wait, in one transaction."""
    if not waiting:
        return
    with database.writing() as connection:
        known = manifest.names(connection)
        for each in waiting:
            # another process may have removed it since it was found, which it does in a transaction
            there = place(folder, "adapters", each.entry.key).exists()
            number = put_named(connection, each.entry if there else each.write(), names, known)
            member, new = manifest.insert_member(connection, folder, number, each.facts)
            if new:
                done.new.append(member)
            else:
                done.known.append(each.facts["path"])
    waiting.clear()


def put_named(
    connection: Any, entry: Entry, names: Mapping[str, str] | None, known: list[str], *, anew: bool = False
) -> int:
    """Number of an entry, written where it is not there or is to be written `anew`, with the names of its modules.

    Parameters
    ----------
    names : name in the file -> name in the index, where it is given
    known : names in the index, among which the others are looked for; new ones are added
    """
    row = connection.execute("SELECT id FROM entries WHERE key = ?", (entry.key,)).fetchone()
    if row is not None and not anew:
        return int(row[0])
    stored = [module.stored for module in entry.modules]
    given = names or {}
    canonical = matched_names(known, stored) | {name: given[name] for name in stored if name in given}
    known += [name for name in canonical.values() if name not in known]
    return manifest.put_entry(connection, entry, canonical)


def matched_names(known: Sequence[str], stored: Sequence[str]) -> dict[str, str]:
    """Name in an adapter -> name in the index: that of the same module of other adapters, else its own.

    Examples
    --------
    >>> matched_names(["model.h.0.q", "model.h.1.q"], ["h.0.q", "h.2.q"])
    {'h.0.q': 'model.h.0.q', 'h.2.q': 'h.2.q'}
    """
    found = {name: name for name in stored}
    there = set(known)
    if there.issuperset(stored) or len(known) < 2:  # two adapters of one module each are a pair by chance
        return found
    return found | dict(match_modules(list(stored), list(known)).pairs)
