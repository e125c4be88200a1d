"""Entries of an index that are damaged, made again from what is left: the file, its rows, or the adapter itself."""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subspace.checkpoints import strict_json
from subspace.checkpoints.atomic_writing import write_whole
from subspace.checkpoints.held_file import HeldFile
from subspace.checkpoints.regular_file import unreadable
from subspace.errors import FileError, SubspaceError
from subspace.index import manifest
from subspace.index.adding import put_named, write_file
from subspace.index.database import NAME, Database
from subspace.index.entry import Entry
from subspace.index.prepared import Prepared, prepared
from subspace.index.shard import place, read_form, read_shard, shard_bytes
from subspace.text import counted, listed, shown

__all__ = ["Repaired", "checked", "healed", "recovered", "repaired"]

_OPTIONS = frozenset({"base", "scale", "adapter_name", "enable_lora", "layout", "rename"})
_FILE = re.compile(r"[0-9a-f]{40}\.safetensors")


@dataclass
class Repaired:
    """What a repair did; each is a list of paths of adapters, and `notes` says it in sentences.

    Attributes
    ----------
    rebuilt : made again from the file in the index, or from the adapter
    adopted : files without rows, such as a killed writer leaves, that have them now
    dropped : could not be made again, and are no longer in the index
    """

    rebuilt: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def recovered(folder: Path, *, create: bool, notes: list[str]) -> Database:
    """The manifest of an index; one that is lost, or that cannot be read, is made again from the files.

    Raises
    ------
    FileError
        As `Database`; also if the folder holds other things, and no index.
    """
    if not _has_manifest(folder):
        if not _has_files(folder):
            if create:
                _require_empty(folder)
            return Database(folder, create=create)
    else:
        try:
            database = Database(folder, create=create)
            with database.reading() as connection:
                manifest.member_rows(connection), manifest.names(connection)
            return database
        except FileError as error:
            if not str(error).startswith("Damaged index"):
                raise
    return _remade(folder, notes)


def _remade(folder: Path, notes: list[str]) -> Database:
    """A manifest made from the files alone; what is there is kept under another name, for who wants to look at it."""
    for ending in ("-wal", "-shm"):
        (folder / f"{NAME}{ending}").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (folder / NAME).rename(folder / f"damaged-{secrets.token_hex(4)}.sqlite")
    database = Database(folder, create=True)
    done = repaired(folder, database)
    notes.append(
        f"The manifest of {shown(folder, longest=1000)} was lost or damaged, and was made again from the files of "
        f"{counted(len(done.adopted), 'adapter')}; of exact copies only one each is known, and pairs are computed anew"
    )
    return database


def _has_manifest(folder: Path) -> bool:
    try:
        return (folder / NAME).exists() or (folder / NAME).is_symlink()
    except OSError as error:
        raise unreadable(folder, error) from None


def _has_files(folder: Path) -> bool:
    return next(_files(folder), None) is not None


def _files(folder: Path, kind: str = "adapters") -> Iterator[Path]:
    """Files of adapters or of pairs, by their keys; no link is followed out of the folder."""
    top = folder / kind
    if top.is_symlink() or not top.is_dir():
        return
    for inner in sorted(top.iterdir()):
        if len(inner.name) == 2 and inner.is_dir() and not inner.is_symlink():
            yield from (path for path in sorted(inner.iterdir()) if _FILE.fullmatch(path.name))


def _require_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a process that makes it at this moment has put the manifest into it
        there = [
            name for name in os.listdir(folder) if not name.startswith((NAME, ".")) and name != "adapters"
        ]
    except OSError as error:
        raise FileError(
            f"Cannot make the index: {shown(error.strerror or error)}, in {shown(folder, longest=1000)}; choose "
            "another folder"
        ) from error
    if there:
        raise FileError(
            f"The folder is not empty and holds no index: {shown(folder, longest=1000)} has {listed(there)}; choose an "
            "empty or a new one"
        )


def healed(folder: Path, database: Database, key: str) -> list[str]:
    """Make one entry whole again, and return notes on what was done.

    Raises
    ------
    FileError
        If nothing is left to make it from; it stays as it is, for `repaired` to drop.
    """
    with database.reading() as connection:
        if _whole(folder, connection, key):
            return []
    done = Repaired()
    if not _rebuilt(folder, database, key, done, sources=True):
        raise FileError(
            f"Damaged entry of an index, and its adapter is gone or has changed: {shown(key)}, in "
            f"{shown(folder, longest=1000)}; repair the index, which drops it, or add the adapter again"
        )
    return done.notes


def checked(folder: Path, database: Database, notes: list[str]) -> Database:
    """The manifest, made again from the files where SQLite finds it damaged."""
    if database.is_sound():
        return database
    database.close()
    return _remade(folder, notes)


def repaired(folder: Path, database: Database, *, sources: bool = True) -> Repaired:
    """Check every file and row of an index; parameters as of `Index.repair`."""
    done = Repaired()
    with database.reading() as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM entries ORDER BY id")]
        damaged = [key for key in keys if not _whole(folder, connection, key)]
    for key in damaged:
        if not _rebuilt(folder, database, key, done, sources=sources):
            _drop(folder, database, key, done)
    known = set(keys)
    for path in _files(folder):
        if path.stem not in known:
            _adopt(folder, database, path, done)
    _sweep(folder, database)
    return done


def _sweep(folder: Path, database: Database) -> None:
    """Remove files of pairs that no row needs, as a killed writer leaves them; who is writing one does it again."""
    with database.writing() as connection:
        known = {key for (key,) in connection.execute("SELECT key FROM blocks")}
        for path in _files(folder, "pairs"):
            if path.stem not in known:
                manifest.remove_file(path)


def _whole(folder: Path, connection: sqlite3.Connection, key: str) -> bool:
    """Whether an entry's rows are as they were written, and its file is what they say, every number of it."""
    try:
        found = manifest.entry_of(connection, key)
        facts = manifest.facts_of_members(connection, key)
        return found is not None and bool(facts) and read_shard(place(folder, "adapters", key))[0] == found[0]
    except (ValueError, FileError):
        return False


def _rebuilt(folder: Path, database: Database, key: str, done: Repaired, *, sources: bool) -> bool:
    """Make an entry again from its file where that is whole, else from its rows and numbers, else from its adapter."""
    with database.reading() as connection:
        facts = manifest.facts_of_members(connection, key)
    try:
        entry, own = read_shard(place(folder, "adapters", key))
        how, facts = "the rows of the manifest", facts or [own]
    except FileError:
        found = _from_numbers(folder, database, key, facts) or (sources and _from_source(folder, key, facts))
        if not found:
            return False
        entry, how = found, "the file in the index"
    _write_rows(folder, database, entry, facts)
    paths = [fact["path"] for fact in facts]
    done.rebuilt += paths
    done.notes.append(f"Damaged, and made again: {how}, of {listed(paths)}")
    return True


def _from_numbers(folder: Path, database: Database, key: str, facts: list[dict[str, Any]]) -> Entry | None:
    """The entry of a file whose header alone is damaged, which is written anew; None where more is."""
    try:
        with database.reading() as connection:
            found = manifest.entry_of(connection, key)
        if found is None or not facts:
            return None
        path = place(folder, "adapters", key)
        file = HeldFile(path)
        forms = [read_form(file, found[0].begin, module) for module in found[0].modules]
    except (ValueError, FileError):
        return None
    content, entry = shard_bytes(found[0], forms, facts[0])
    write_whole({path: content})
    return entry


def _from_source(folder: Path, key: str, facts: list[dict[str, Any]]) -> Entry | None:
    """The entry of an adapter that is still there with the same bytes, its file written anew."""
    for fact in facts:
        with suppress(SubspaceError, ValueError, TypeError):
            found = _again(fact)
            if found.key == key:
                return write_file(folder, found)
    return None


def _again(fact: Mapping[str, Any]) -> Prepared:
    """An adapter, opened again; ValueError where that would look anywhere but at a file of this machine.

    What a manifest from elsewhere says is only ever read, and only used where it has the content of the key.
    """
    options = strict_json.parse(fact["reading"])
    if not isinstance(options, dict) or not options.keys() <= _OPTIONS:
        raise ValueError("options that are not those of load_adapter")
    paths = [fact["source"], *([options["base"]] if "base" in options else [])]
    for path in paths:
        if not (isinstance(path, str) and Path(path).is_absolute()) or path.startswith(("//", "\\\\")):
            raise ValueError(f"not a path on this machine: {path}")
        if not Path(path).exists():
            raise ValueError(f"no such file: {path}")
    HeldFile(fact["source"])
    return prepared(fact["source"], options, fact["step"])


def _write_rows(folder: Path, database: Database, entry: Entry, facts: list[dict[str, Any]]) -> None:
    with database.writing() as connection:
        canonical = manifest.clear_entry(connection, entry.key)
        number = put_named(connection, entry, canonical, anew=True)
        for fact in facts:
            manifest.insert_member(connection, folder, number, fact)


def _drop(folder: Path, database: Database, key: str, done: Repaired) -> None:
    with database.writing() as connection:
        paths = [fact["path"] for fact in manifest.facts_of_members(connection, key)]
        for (number,) in connection.execute("SELECT id FROM entries WHERE key = ?", (key,)).fetchall():
            manifest.drop_entry(connection, number)
        with suppress(FileError):
            manifest.remove_file(place(folder, "adapters", key))
    done.dropped += paths
    done.notes.append(f"Damaged, and dropped, since the adapter is gone or has changed: {listed(paths)}")


def _adopt(folder: Path, database: Database, path: Path, done: Repaired) -> None:
    """Give a file its rows, unless another content is there under its path by now; then it is not needed."""
    with database.writing() as connection:
        try:
            entry, fact = read_shard(path)
        except FileError:
            manifest.remove_file(path)
            done.notes.append(f"A damaged file that no adapter needs was removed: {shown(path.name)}")
            return
        if manifest.is_taken(connection, fact):
            manifest.remove_file(path)
            return
        number = put_named(connection, entry, None)
        manifest.insert_member(connection, folder, number, fact)
    done.adopted.append(fact["path"])
