"""An index from somebody else: data, and nothing that runs, leads out of its folder, or asks the network."""

import os
import shutil
import socket
import sqlite3
import sys
from pathlib import Path

import pytest

from subspace.errors import FileError, SubspaceError
from subspace.index import Index
from subspace.index.shard import place


def _connected(index):
    index.close()
    return sqlite3.connect(index.folder / "manifest.sqlite", isolation_level=None)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON members BEGIN DELETE FROM entries; END",
        "CREATE VIEW v AS SELECT * FROM members",
        "CREATE TABLE more (x)",
        "ALTER TABLE members ADD COLUMN more TEXT",
        "DROP TABLE blocks",
        "CREATE TABLE sqlitex_members (x)",
    ],
)
def test_tables_that_are_not_ours_are_refused(index, statement):
    connection = _connected(index)
    connection.execute(statement)
    connection.close()
    with pytest.raises(FileError, match="its tables are not those of version 1"):
        Index(index.folder)


def test_another_programs_database_and_a_newer_one_are_refused(index, tmp_path):
    connection = _connected(index)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(FileError, match="of a newer version: 2, and this one reads up to 1"):
        Index(index.folder)
    (tmp_path / "other").mkdir()
    connection = sqlite3.connect(tmp_path / "other" / "manifest.sqlite")
    connection.execute("CREATE TABLE cookies (x)")
    connection.commit()
    connection.close()
    with pytest.raises(FileError, match="a database of another program"):
        Index(tmp_path / "other")


KEYS = [
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "ab/../../x",
    "A" * 40,
    "a" * 39,
    "a" * 41,
    "",
    "a" * 40 + "\n",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_never_a_path(index, key):
    with pytest.raises(FileError, match="is not a key"):
        place(index.folder, "adapters", key)
    connection = _connected(index)
    connection.execute("UPDATE entries SET key = ? WHERE id = 1", (key,))
    connection.close()
    with Index(index.folder) as found:
        with pytest.raises(FileError, match="Damaged entry"):
            found.forms(found.modules[0], [0])
        assert found.repair(sources=False).notes
        assert len(found) == 8  # its file had no row any more, and says itself what it is


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_no_link_is_followed_out_of_the_folder(index, tmp_path):
    outside = tmp_path / "outside"
    folder = place(index.folder, "adapters", index.keys[0]).parent
    folder.rename(outside)
    folder.symlink_to(outside)
    kept = sorted(outside.iterdir())
    index.remove(range(len(index)))
    assert sorted(outside.iterdir()) == kept
    index.close()
    manifest = index.folder / "manifest.sqlite"
    manifest.rename(tmp_path / "elsewhere.sqlite")
    manifest.symlink_to(tmp_path / "elsewhere.sqlite")
    with pytest.raises(FileError, match="symbolic link"):
        Index(index.folder)


@pytest.mark.parametrize(
    "source", ["org/name", "hf://org/name", "//server/share/x", "\\\\server\\x", "/dev/zero", "/"]
)
def test_a_source_is_a_file_of_this_machine_or_nothing(index, source, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("the network was asked"))
    place(index.folder, "adapters", index.keys[2]).unlink()
    connection = _connected(index)
    from subspace.index.entry import checksum

    (values,) = connection.execute("SELECT path, reading, step, added FROM members WHERE id = 3").fetchall()
    path, reading, step, added = values
    connection.execute(
        "UPDATE members SET source = ?, checksum = ? WHERE id = 3",
        (source, checksum(path, source, reading, step, added)),
    )
    connection.close()
    with Index(index.folder) as found:
        assert found.repair().dropped == [path]


@pytest.mark.parametrize(
    "reading", ['{"base": "org/name"}', '{"source": 1}', "[1]", "not json", '{"scale": "x"}']
)
def test_a_reading_that_is_not_ours_is_not_tried(index, reading, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("the network was asked"))
    place(index.folder, "adapters", index.keys[2]).unlink()
    connection = _connected(index)
    from subspace.index.entry import checksum

    ((path, source, step, added),) = connection.execute(
        "SELECT path, source, step, added FROM members WHERE id = 3"
    )
    connection.execute(
        "UPDATE members SET reading = ?, checksum = ? WHERE id = 3",
        (reading, checksum(path, source, reading, step, added)),
    )
    connection.close()
    with Index(index.folder) as found:
        assert found.repair().dropped == [path]


@pytest.mark.parametrize("value", [2**62, -1, None, "x", 1.5, b"\x00"])
@pytest.mark.parametrize("column", ["r", "d_in", "k_in", "k", "small", "content"])
def test_numbers_that_cannot_be_are_found(index, column, value):
    from subspace.index.entry import checksum

    connection = _connected(index)
    if value is None:
        value = 2**70 if column == "k" else "NULL"
        value = str(value)
    columns = "stored kind r d_in d_out k_in k_out k factored scale flags small large content".split()
    row = dict(
        zip(
            columns,
            connection.execute(f"SELECT {', '.join(columns)} FROM modules LIMIT 1").fetchone(),
            strict=True,
        )
    )
    row[column] = value.hex() if isinstance(value, bytes) else value
    assignments = ", ".join(f"{name} = ?" for name in (column, "checksum"))
    connection.execute(
        f"UPDATE modules SET {assignments} WHERE stored = ? AND entry = 1",
        (row[column], checksum(*row.values()), row["stored"]),
    )
    connection.close()
    with Index(index.folder) as found:
        done = found.repair(sources=False)
        assert len(done.rebuilt) == 1 and not done.dropped


def test_random_damage_of_the_manifest_is_an_error_in_one_line_or_found(index):
    import random

    index.close()
    manifest = index.folder / "manifest.sqlite"
    content = manifest.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 30)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        for path in index.folder.glob("*.sqlite*"):
            path.unlink()
        manifest.write_bytes(damaged)
        try:
            with Index(index.folder) as found:
                found.repair(sources=False)
                for module in found.modules:
                    found.forms(module, found.holders(module))
        except SubspaceError as error:
            assert str(error).isprintable()


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of files that are any bytes")
def test_a_path_that_is_no_utf8_is_kept_as_it_is(planted, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    source = planted.paths[0]
    (shutil.copytree if Path(source).is_dir() else shutil.copy)(source, path)
    with Index(tmp_path / "index") as index:
        index.add([path])
        index.add([path])
        assert [member.path.startswith(path) for member in index.members] == [True]
    with Index(tmp_path / "index") as again:
        (member,) = again.members
        assert member.path.startswith(path)
