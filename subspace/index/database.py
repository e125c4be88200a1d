"""The SQLite file of an index: its tables, opened so that a file from elsewhere is data and nothing more.

References
----------
SQLite, "Defense Against The Dark Arts" (sqlite.org/security.html): what to set before a database of unknown origin is
read; "Write-Ahead Logging" (sqlite.org/wal.html).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from subspace.checkpoints.regular_file import open_regular
from subspace.errors import FileError
from subspace.text import shown

__all__ = ["APPLICATION", "NAME", "SCHEMA", "VERSION", "Database"]

NAME = "manifest.sqlite"
APPLICATION = 0x73756249  # "subI"
VERSION = 1
_PATIENCE = 60.0  # seconds to wait for another writer, which holds the file for a fraction of one
_MAGIC = b"SQLite format 3\x00"

SCHEMA = (
    "CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, d_out INTEGER NOT NULL, "
    "d_in INTEGER NOT NULL)",
    "CREATE TABLE aliases (stored TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, sha256 TEXT, "
    "size INTEGER NOT NULL, begin INTEGER NOT NULL, format TEXT NOT NULL, base TEXT, checksum INTEGER NOT NULL)",
    "CREATE TABLE members (id INTEGER PRIMARY KEY AUTOINCREMENT, entry INTEGER NOT NULL REFERENCES entries (id), "
    "path TEXT NOT NULL, source TEXT NOT NULL, reading TEXT NOT NULL, step INTEGER, added TEXT NOT NULL, "
    "checksum INTEGER NOT NULL, UNIQUE (source, reading))",
    "CREATE INDEX members_by_entry ON members (entry)",
    "CREATE TABLE modules (name INTEGER NOT NULL REFERENCES names (id), "
    "entry INTEGER NOT NULL REFERENCES entries (id), stored TEXT NOT NULL, kind TEXT NOT NULL, "
    "r INTEGER NOT NULL, d_in INTEGER NOT NULL, d_out INTEGER NOT NULL, k_in INTEGER NOT NULL, "
    "k_out INTEGER NOT NULL, k INTEGER NOT NULL, factored INTEGER NOT NULL, scale REAL, flags TEXT NOT NULL, "
    "small INTEGER NOT NULL, large INTEGER NOT NULL, content INTEGER NOT NULL, checksum INTEGER NOT NULL, "
    "PRIMARY KEY (name, entry)) WITHOUT ROWID",
    "CREATE INDEX modules_by_entry ON modules (entry)",
    "CREATE TABLE settings (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, text TEXT NOT NULL)",
    "CREATE TABLE blocks (id INTEGER PRIMARY KEY AUTOINCREMENT, setting INTEGER NOT NULL REFERENCES settings (id), "
    "new TEXT NOT NULL, old TEXT NOT NULL, key TEXT NOT NULL, content TEXT)",
    "CREATE INDEX blocks_by_setting ON blocks (setting)",
)


class Database:
    """The manifest of an index, with one connection for each thread that uses it.

    Parameters
    ----------
    folder : of the index, which is there
    create : whether to make the file where there is none

    Raises
    ------
    FileError
        If there is none, or it is not an index's, is damaged, or was written by a newer version.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.path = Path(os.path.realpath(folder)) / NAME
        self._connections: dict[tuple[int, int], sqlite3.Connection] = {}
        weakref.finalize(self, _close, self._connections)
        if os.path.lexists(self.path):
            _require_own_kind(self.path)
        elif not create:
            raise FileError(
                f"No index of adapters: {shown(self.path, longest=1000)} does not exist; check the folder, or add "
                "adapters to it"
            )
        with self._guarded():
            self._prepared(create)

    def close(self) -> None:
        """Close the connections of this process."""
        _close(self._connections)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection, whose errors of SQLite become those of a damaged or busy index."""
        with self._guarded():
            yield self._connection()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of what is written in it, or nothing. Other writers wait for its end."""
        with self._guarded():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _connection(self) -> sqlite3.Connection:
        # a connection must not be used by a process that was forked from its own
        owner = os.getpid(), threading.get_ident()
        if owner not in self._connections:
            self._connections[owner] = _connected(self.path)
        return self._connections[owner]

    def _prepared(self, create: bool) -> None:
        connection = self._connection()
        if create and _is_new(connection):
            _wal(connection)
            with self.writing() as connection:
                if _is_new(connection):
                    for statement in SCHEMA:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
        _require_known(connection, self.path)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            raise _unusable(error, self.path) from error

    def is_sound(self) -> bool:
        """Whether SQLite finds nothing wrong with the file; reads all of it."""
        try:
            with self.reading() as connection:
                return connection.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]
        except FileError:
            return False


def _close(connections: dict[tuple[int, int], sqlite3.Connection]) -> None:
    for (process, _), connection in connections.items():
        if process == os.getpid():
            with suppress(sqlite3.Error):
                connection.close()
    connections.clear()


def _connected(path: Path) -> sqlite3.Connection:
    """A connection that runs nothing that is in the file: no triggers or views with functions, no extensions."""
    writable = os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
    mode = "rwc" if writable else "ro"
    # where not even the files beside it can be made, nobody here writes to it either
    more = "" if writable or path.with_name(f"{NAME}-wal").exists() else "&immutable=1"
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}{more}",
        uri=True,
        timeout=_PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")
    return connection


def _wal(connection: sqlite3.Connection) -> None:
    """Let readers go on while one writes; a file system without shared memory keeps the older journal."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:  # the time-out is not kept here by SQLite
            if "locked" not in str(error) or time.monotonic() > deadline:
                return
            time.sleep(0.02)


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND substr(name, 1, 7) <> 'sqlite_'"
    )
    return [sql for (sql,) in found]


def _is_new(connection: sqlite3.Connection) -> bool:
    """Whether nothing has been written to it: by a process that makes it at this moment, or was killed before."""
    ((application,),) = connection.execute("PRAGMA application_id")
    return application == 0 and not _tables(connection)


def _require_own_kind(path: Path) -> None:
    """Refuse what is no SQLite file, and a link, which may lead anywhere."""
    if path.is_symlink():
        raise FileError(
            f"Not an index of adapters: {shown(path, longest=1000)} is a symbolic link; remove it"
        )
    with open_regular(path) as file:
        start = file.read(len(_MAGIC))
    if start and start != _MAGIC:
        raise FileError(f"Damaged index: {shown(path, longest=1000)} is not an SQLite file; repair the index")


def _require_known(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse another program's database, a newer one, and one with a table, view or trigger that is not ours."""
    name = shown(path, longest=1000)
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    if application != APPLICATION:
        raise FileError(
            f"Not an index of adapters: {name} is a database of another program; choose another folder"
        )
    if version > VERSION:
        raise FileError(
            f"The index is of a newer version: {version}, and this one reads up to {VERSION}, in {name}; update "
            "subspace, or make the index again in another folder"
        )
    if sorted(_tables(connection)) != sorted(SCHEMA):
        raise FileError(
            f"Not an index of adapters: its tables are not those of version {VERSION}, in {name}; choose another folder"
        )


def _unusable(error: Exception, path: Path) -> FileError:
    name, text = shown(path, longest=1000), shown(error)
    if "locked" in text or "busy" in text:
        return FileError(
            f"Another process is writing the index: {name}; wait for it and try again ({_PATIENCE:.0f} seconds passed)"
        )
    if "readonly" in text:
        return FileError(f"Cannot write the index: {name} may only be read; check its permissions")
    if "full" in text:
        return FileError(f"No space left on device while writing {name}; free some space and try again")
    if "unable to open" in text:
        return FileError(f"Cannot open the index: {text}, in {name}; check its permissions")
    return FileError(f"Damaged index: {text}, in {name}; repair the index")
