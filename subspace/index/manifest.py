"""Rows of the manifest: what is asked of them, and written to them, in the words of the index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from subspace.errors import FileError
from subspace.index.entry import Entry, StoredModule, checksum
from subspace.index.shard import place

__all__ = [
    "MemberRow",
    "aliases",
    "clear_entry",
    "drop_entry",
    "entries_with",
    "entry_of",
    "facts_of_members",
    "insert_member",
    "is_taken",
    "member_rows",
    "module_rows",
    "names",
    "put_entry",
    "remember",
    "remove_file",
    "remove_members",
    "shape_of",
]

_COLUMNS = ", ".join(field.name for field in fields(StoredModule)) + ", checksum"
_OF_MODULE = ", ".join(f"m.{column}" for column in _COLUMNS.split(", "))
_MEMBER = "path, source, reading, step, added"


@dataclass(frozen=True)
class MemberRow:
    """One adapter of the library: a path whose content is an entry.

    Attributes
    ----------
    id : of the row, which is never given to another member
    entry, key : of its content
    sha256, base, format : of its content
    path : of the file, as it was given
    source : the absolute path, empty for tensors in memory
    reading : options that it was read with, as JSON
    step : of a checkpoint
    """

    id: int
    entry: int
    key: str
    sha256: str | None
    base: str | None
    format: str
    path: str
    source: str
    reading: str
    step: int | None

    def is_sound(self) -> bool:
        """Whether its values are of the types that they should be, which SQLite does not hold anyone to."""
        texts = (self.key, self.format, self.path, self.source, self.reading)
        optional = (self.sha256, self.base)
        return (
            all(isinstance(text, str) for text in texts)
            and all(text is None or isinstance(text, str) for text in optional)
            and (self.step is None or isinstance(self.step, int))
        )


def _storable(value: Any) -> Any:
    """A value as SQLite keeps it: a path that is no UTF-8, which it refuses as text, as its bytes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass")
    return value


def _read(value: Any) -> Any:
    """The value that `_storable` was given."""
    try:
        return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
    except UnicodeDecodeError:  # of a damaged index, of which `is_sound` is False
        return None


def member_rows(connection: sqlite3.Connection, until: int | None = None) -> list[MemberRow]:
    """All members in the order in which they were added, or those up to the one with the id `until`."""
    found = connection.execute(
        "SELECT m.id, m.entry, e.key, e.sha256, e.base, e.format, m.path, m.source, m.reading, m.step "
        "FROM members m JOIN entries e ON e.id = m.entry WHERE m.id <= ? ORDER BY m.id",
        (2**62 if until is None else until,),
    )
    rows = [MemberRow(*map(_read, row)) for row in found]
    if not all(row.is_sound() for row in rows):
        raise FileError(
            "Damaged index: the rows of its members are not of the types that they were; repair the index"
        )
    return rows


def names(connection: sqlite3.Connection) -> list[str]:
    """Names of the modules that any entry has, with directions."""
    found = connection.execute(
        "SELECT name FROM names WHERE EXISTS (SELECT 1 FROM modules m WHERE m.name = names.id AND m.k > 0)"
    )
    return [name for (name,) in found]


def aliases(connection: sqlite3.Connection) -> dict[str, str]:
    """Name in a file -> name in the index, of all that were met; shapes may tell modules of one name apart."""
    return dict(connection.execute("SELECT stored, name FROM aliases"))


def remember(connection: sqlite3.Connection, met: Mapping[str, str]) -> None:
    """Keep what `aliases` returns."""
    connection.executemany("INSERT OR REPLACE INTO aliases (stored, name) VALUES (?, ?)", list(met.items()))


def shape_of(connection: sqlite3.Connection, name: str) -> tuple[int, int] | None:
    """Dimensions (d_out, d_in) of a module, None where it is new."""
    found = connection.execute("SELECT d_out, d_in FROM names WHERE name = ?", (name,)).fetchone()
    return None if found is None else (int(found[0]), int(found[1]))


def entries_with(connection: sqlite3.Connection, module: str) -> list[int]:
    """Ids of the entries that have a module, with directions."""
    found = connection.execute(
        "SELECT entry FROM modules WHERE name = (SELECT id FROM names WHERE name = ?) AND k > 0", (module,)
    )
    return [entry for (entry,) in found]


def module_rows(connection: sqlite3.Connection, module: str) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """(id of the entry, first byte behind its file's header, values of the row) of a module, in each that has it."""
    found = connection.execute(
        f"SELECT m.entry, e.begin, {_OF_MODULE} FROM modules m JOIN entries e ON e.id = m.entry "
        "WHERE m.name = (SELECT id FROM names WHERE name = ?) AND m.k > 0",
        (module,),
    )
    return ((row[0], row[1], tuple(row[2:])) for row in found)


def entry_of(connection: sqlite3.Connection, key: str) -> tuple[Entry, dict[str, str]] | None:
    """An entry with its modules, and stored -> canonical name; None without one, ValueError if a row is damaged."""
    row = connection.execute(
        "SELECT key, sha256, size, begin, format, base, checksum, id FROM entries WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    if row[6] != checksum(*row[:6]):
        raise ValueError("a row of the manifest is damaged")
    found = connection.execute(
        f"SELECT n.name, {_OF_MODULE} FROM modules m JOIN names n ON n.id = m.name WHERE m.entry = ?",
        (row[7],),
    )
    modules = [(name, StoredModule.of_row(rest)) for name, *rest in found]
    modules.sort(key=lambda pair: (pair[1].small, pair[1].large))
    entry = Entry(row[0], row[1], row[2], row[3], row[4], row[5], tuple(module for _, module in modules))
    return entry, {module.stored: name for name, module in modules}


def put_entry(connection: sqlite3.Connection, entry: Entry, canonical: Mapping[str, str]) -> int:
    """Write an entry, or write it anew where it is there; its number, which stays the same.

    Parameters
    ----------
    canonical : name in the file -> name in the index, of every module
    """
    row = connection.execute("SELECT id FROM entries WHERE key = ?", (entry.key,)).fetchone()
    columns = "key, sha256, size, begin, format, base, checksum"
    if row is None:
        done = connection.execute(
            f"INSERT INTO entries ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", entry.row()
        )
        number = int(done.lastrowid or 0)
    else:
        number = int(row[0])
        connection.execute(
            f"UPDATE entries SET ({columns}) = (?, ?, ?, ?, ?, ?, ?) WHERE id = ?", (*entry.row(), number)
        )
        connection.execute("DELETE FROM modules WHERE entry = ?", (number,))
    connection.executemany(
        f"INSERT INTO modules (name, entry, {_COLUMNS}) VALUES "
        f"({', '.join('?' * (2 + len(fields(StoredModule)) + 1))})",
        [
            (_name(connection, canonical[module.stored], module), number, *module.row())
            for module in entry.modules
        ],
    )
    return number


def _name(connection: sqlite3.Connection, name: str, module: StoredModule) -> int:
    row = connection.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return int(row[0])
    done = connection.execute(
        "INSERT INTO names (name, d_out, d_in) VALUES (?, ?, ?)", (name, module.d_out, module.d_in)
    )
    return int(done.lastrowid or 0)


def insert_member(
    connection: sqlite3.Connection, folder: Path, entry: int, facts: Mapping[str, Any]
) -> tuple[int, bool]:
    """Add a member, and whether it is new: a path that was read in this way before is replaced if its content changed.

    Parameters
    ----------
    facts : path, source, reading, step and, where it is known, the time when it was `added`
    """
    there = connection.execute(
        "SELECT id, entry FROM members WHERE source = ? AND reading = ?",
        (_storable(facts["source"]), facts["reading"]),
    ).fetchone()
    if there is not None and there[1] == entry:
        return int(there[0]), False
    if there is not None:
        remove_members(connection, folder, [there[0]])
    added = facts.get("added") or datetime.now(timezone.utc).isoformat(timespec="seconds")
    values = (facts["path"], facts["source"], facts["reading"], facts["step"], added)
    done = connection.execute(
        f"INSERT INTO members (entry, {_MEMBER}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (entry, *map(_storable, values), checksum(*values)),
    )
    return int(done.lastrowid or 0), True


def remove_members(connection: sqlite3.Connection, folder: Path, ids: Sequence[int]) -> None:
    """Remove members, and the entries with their files that no other has.

    A file goes inside the transaction: whoever adds the same content next waits for its end, and finds it gone.
    """
    entries = {entry for number in ids for (entry,) in connection.execute(
        "SELECT entry FROM members WHERE id = ?", (number,))}  # fmt: skip
    connection.executemany("DELETE FROM members WHERE id = ?", [(number,) for number in ids])
    for entry in entries:
        left = connection.execute("SELECT 1 FROM members WHERE entry = ? LIMIT 1", (entry,)).fetchone()
        if left is None:
            ((key,),) = connection.execute("SELECT key FROM entries WHERE id = ?", (entry,))
            drop_entry(connection, entry)
            remove_file(place(folder, "adapters", key))


def remove_file(path: Path) -> None:
    """Remove a file of the index, unless its folder is a link, which may lead anywhere."""
    if not (path.parent.is_symlink() or path.parent.parent.is_symlink()):
        path.unlink(missing_ok=True)


def drop_entry(connection: sqlite3.Connection, number: int) -> None:
    """Remove an entry with its modules and members."""
    for statement in (
        "DELETE FROM members WHERE entry = ?",
        "DELETE FROM modules WHERE entry = ?",
        "DELETE FROM entries WHERE id = ?",
    ):
        connection.execute(statement, (number,))


def facts_of_members(connection: sqlite3.Connection, key: str) -> list[dict[str, Any]]:
    """What is known of the members of an entry, of those whose rows are as they were written."""
    found = connection.execute(
        f"SELECT {_MEMBER}, checksum FROM members WHERE entry = (SELECT id FROM entries WHERE key = ?) ORDER BY id",
        (key,),
    )
    return [
        dict(zip(_MEMBER.split(", "), values, strict=True))
        for *values, check in (map(_read, row) for row in found)
        if check == checksum(*values)
    ]


def clear_entry(connection: sqlite3.Connection, key: str) -> dict[str, str]:
    """Remove the modules of an entry, and members whose rows are damaged; name in the file -> in the index."""
    row = connection.execute("SELECT id FROM entries WHERE key = ?", (key,)).fetchone()
    if row is None:
        return {}
    canonical = dict(
        connection.execute(
            "SELECT m.stored, n.name FROM modules m JOIN names n ON n.id = m.name WHERE m.entry = ?", row
        )
    )
    connection.execute("DELETE FROM modules WHERE entry = ?", row)
    found = connection.execute(f"SELECT id, {_MEMBER}, checksum FROM members WHERE entry = ?", row).fetchall()
    rows = [[_read(value) for value in each] for each in found]
    damaged = [(number,) for number, *values, check in rows if check != checksum(*values)]
    connection.executemany("DELETE FROM members WHERE id = ?", damaged)
    return canonical


def is_taken(connection: sqlite3.Connection, facts: Mapping[str, Any]) -> bool:
    """Whether a path, read in the same way, is a member."""
    found = connection.execute(
        "SELECT 1 FROM members WHERE source = ? AND reading = ?",
        (_storable(facts["source"]), facts["reading"]),
    )
    return found.fetchone() is not None
