"""Adding adapters to an index: their files first, then the rows of many in one transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.adapters.naming.across import CommonNames
from subspace.checkpoints.atomic_writing import write_whole
from subspace.checkpoints.sole_writer import tidy
from subspace.errors import SubspaceError
from subspace.index import manifest
from subspace.index.entry import Entry
from subspace.index.prepared import Prepared, prepared
from subspace.index.shard import place, read_shard

if TYPE_CHECKING:
    from subspace.index.database import Database

__all__ = ["Added", "Adding", "put_named", "write_file"]

_AT_ONCE = 32  # adapters whose rows are written in one transaction, and whose files are held open
_WRITERS = 4  # threads that wait for the disk while the next adapter is computed


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
class _Waiting:
    """An adapter whose file is in its place, or about to be, and whose rows are not."""

    found: Prepared
    entry: Entry
    file: Future[None] | None = None


def _tidied(folder: Path) -> None:
    """Remove what killed writers left, of adapters that nobody adds again too."""
    for kind in ("adapters", "pairs"):
        with suppress(OSError), os.scandir(folder / kind) as below:
            for each in below:
                tidy(Path(each.path))


class Adding:
    """Adapters on their way into an index.

    Parameters
    ----------
    folder, database : of the index
    names : name in a file -> name in the index, where it is given
    """

    def __init__(self, folder: Path, database: Database, names: Mapping[str, str] | None) -> None:
        self._folder, self._database, self._names = folder, database, names
        self._waiting: list[_Waiting] = []
        self.done = Added()

    def add(
        self, adapters: Iterable[Any], reading: Mapping[str, Any], step: int | None, *, keep_going: bool
    ) -> None:
        """Add adapters; parameters as of `Index.add`. What comes before one that cannot be read is added."""
        _tidied(self._folder)
        with ThreadPoolExecutor(_WRITERS) as pool:
            try:
                for source in adapters:
                    self._add(source, reading, step, pool, keep_going=keep_going)
                    if len(self._waiting) >= _AT_ONCE:
                        self._commit()
            finally:
                self._commit()

    def _add(
        self,
        source: Any,
        reading: Mapping[str, Any],
        step: int | None,
        pool: ThreadPoolExecutor,
        *,
        keep_going: bool,
    ) -> None:
        try:
            found = prepared(source, reading, step)
            entry = self._known(found.key)
            if entry is not None:
                self._waiting.append(_Waiting(found, entry))
                return
            content, entry, notes = found.encoded()
        except SubspaceError as error:
            if not keep_going:
                raise
            self.done.refused.append((_name(source), str(error)))
            return
        self.done.notes += notes
        file = pool.submit(write_whole, {place(self._folder, "adapters", found.key): content})
        self._waiting.append(_Waiting(found, entry, file))

    def _known(self, key: str) -> Entry | None:
        """The entry of a content that is on its way, in the manifest, or in a file without rows that is whole."""
        for each in self._waiting:
            if each.entry.key == key:
                return each.entry
        with self._database.reading() as connection:
            try:
                found = manifest.entry_of(connection, key)
            except ValueError:
                return None
        return _in_file(place(self._folder, "adapters", key)) if found is None else found[0]

    def _commit(self) -> None:
        """Write the rows of all that wait, in one transaction, once their files are complete on disk."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.file is not None:
                each.file.result()
        if not waiting:
            return
        with self._database.writing() as connection:
            for each in waiting:
                self._put(connection, each)

    def _put(self, connection: sqlite3.Connection, each: _Waiting) -> None:
        entry = each.entry
        # another process may have removed it since it was found: it does so in a transaction
        if not place(self._folder, "adapters", entry.key).exists():
            entry = write_file(self._folder, each.found)
        number = put_named(connection, entry, self._names)
        member, new = manifest.insert_member(connection, self._folder, number, each.found.facts)
        if new:
            self.done.new.append(member)
        else:
            self.done.known.append(each.found.facts["path"])


def write_file(folder: Path, found: Prepared) -> Entry:
    """Write the file of an adapter, and return its entry."""
    content, entry, _ = found.encoded()
    write_whole({place(folder, "adapters", found.key): content})
    return entry


def _name(source: Any) -> str:
    if isinstance(source, str | bytes | os.PathLike):
        return os.fsdecode(source)
    return str(getattr(source, "path", "tensors in memory"))


def _in_file(path: Path) -> Entry | None:
    """The entry of a file without rows, of a writer that was killed before them, or is about to write them."""
    if not path.exists():
        return None
    try:
        return read_shard(path)[0]
    except SubspaceError:
        return None


def put_named(
    connection: sqlite3.Connection, entry: Entry, names: Mapping[str, str] | None, *, anew: bool = False
) -> int:
    """Number of an entry, written where it is not there or is to be written `anew`, with the names of its modules.

    Parameters
    ----------
    names : name in the file -> name in the index, where it is given; others are matched with those that are known
    """
    row = connection.execute("SELECT id FROM entries WHERE key = ?", (entry.key,)).fetchone()
    if row is not None and not anew:
        return int(row[0])
    return manifest.put_entry(connection, entry, _named(connection, entry, names or {}))


def _named(connection: sqlite3.Connection, entry: Entry, given: Mapping[str, str]) -> dict[str, str]:
    """Name in the file -> name in the index, of every module; one of another shape is another module."""
    known = manifest.aliases(connection)
    common = CommonNames(known)
    rest = common.of([module.stored for module in entry.modules if module.stored not in given])
    manifest.remember(
        connection, {name: alias for name, alias in common.aliases.items() if name not in known}
    )
    found = {}
    for module in entry.modules:
        name = given.get(module.stored) or rest[module.stored]
        shape = manifest.shape_of(connection, name)
        if module.stored not in given and shape not in (None, (module.d_out, module.d_in)):
            name = f"{name} ({module.d_out} x {module.d_in})"
        found[module.stored] = name
    return found
