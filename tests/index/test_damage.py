"""An index that is damaged in every way that a disk, a kill or a user has: found, made again, and nothing else lost."""

import shutil
import sqlite3

import pytest
from indexes import assert_same, contents

from subspace.errors import FileError
from subspace.index import Index
from subspace.index.shard import place


@pytest.fixture
def whole(index, tmp_path):
    """A copy of the index, to compare with."""
    index.close()
    shutil.copytree(index.folder, tmp_path / "whole")
    return Index(tmp_path / "whole")


def _file(index, number=3):
    return place(index.folder, "adapters", index.keys[number])


def _execute(index, statement, *values):
    index.close()
    connection = sqlite3.connect(index.folder / "manifest.sqlite")
    with connection:
        assert connection.execute(statement, values).rowcount != 0
    connection.close()
    index.refresh()


def _flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


_ENTRY = "(SELECT id FROM entries WHERE key = ?)"
DAMAGE = {
    "cut": lambda index: _file(index).write_bytes(_file(index).read_bytes()[:-5]),
    "empty": lambda index: _file(index).write_bytes(b""),
    "gone": lambda index: _file(index).unlink(),
    "a flipped number": lambda index: _flip(_file(index), -100),
    "a flipped small number": lambda index: _flip(_file(index), _file(index).stat().st_size // 2),
    "a flipped header": lambda index: _flip(_file(index), 30),
    "another's file": lambda index: shutil.copy(_file(index, 4), _file(index)),
    "a row of a module": lambda index: _execute(
        index, f"UPDATE modules SET scale = 7.0 WHERE entry = {_ENTRY}", index.keys[3]
    ),
    "an offset": lambda index: _execute(
        index, f"UPDATE modules SET large = large + 4 WHERE entry = {_ENTRY}", index.keys[3]
    ),
    "the beginning": lambda index: _execute(
        index, "UPDATE entries SET begin = begin + 8 WHERE key = ?", index.keys[3]
    ),
    "the rows of its modules gone": lambda index: _execute(
        index, f"DELETE FROM modules WHERE entry = {_ENTRY}", index.keys[3]
    ),
    "a member's row": lambda index: _execute(index, "UPDATE members SET path = 'x' WHERE id = ?", index.ids[3]),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_damaged_is_found_and_made_again(index, whole, case):
    DAMAGE[case](index)
    done = index.repair()
    assert done.rebuilt == [whole.members[3].path] and not done.dropped
    assert len(done.notes) == 1 and "made again" in done.notes[0]
    assert_same(index, whole)
    assert [(m.path, m.sha256) for m in index.members] in (
        [(m.path, m.sha256) for m in whole.members],
        [(m.path, m.sha256) for n, m in enumerate(whole.members) if n != 3]
        + [(whole.members[3].path, whole.members[3].sha256)],
    )
    again = index.repair()
    assert not (again.rebuilt or again.dropped or again.adopted or again.notes)


@pytest.mark.parametrize(
    "case", ["cut", "gone", "a flipped number", "a flipped small number", "another's file", "an offset"]
)
def test_what_is_damaged_is_made_again_when_it_is_read(index, whole, case):
    DAMAGE[case](index)
    index.refresh()
    assert_same(index, whole)
    assert any("made again" in note for note in index.notes)


@pytest.mark.parametrize("case", ["cut", "gone", "a flipped number"])
def test_what_cannot_be_made_again_is_dropped_alone(tmp_path, planted, whole, case):
    mine = shutil.copytree(planted.paths[3], tmp_path / "mine")
    with Index(tmp_path / "other") as index:
        index.add([*planted.paths[:3], mine, *planted.paths[4:8]])
        DAMAGE[case](index)
        shutil.copy(planted.paths[9] / "adapter_model.safetensors", mine)  # there, with another content
        with pytest.raises(FileError, match=r"Damaged entry.*gone or has changed"):
            for module in index.modules:
                index.forms(module, [3])
        before = {key: value for key, value in contents(whole).items() if key[0] != str(planted.paths[3])}
        done = index.repair()
        assert done.dropped == [str(mine)] and "dropped" in done.notes[0]
        assert contents(index) == before
        assert not index.repair().notes


def test_a_damaged_header_is_made_again_without_the_adapter(index, whole):
    DAMAGE["a flipped header"](index)
    assert index.repair(sources=False).rebuilt == [whole.members[3].path]
    assert_same(index, whole)
    assert not index.repair(sources=False).notes


def test_a_file_without_rows_is_taken_up(index, whole):
    """As a writer leaves it that is killed between the file and its rows."""
    key = index.keys[5]
    copy = _file(index, 5).read_bytes()
    index.remove([5])
    place(index.folder, "adapters", key).write_bytes(copy)
    done = index.repair()
    assert done.adopted == [whole.members[5].path] and not done.dropped
    assert_same(index, whole)
    index.remove([7])
    place(index.folder, "adapters", key).write_bytes(copy)
    index.add([whole.members[5].path])  # the next writer uses it
    assert_same(index, whole)


def test_a_file_without_rows_does_not_take_the_place_of_what_came_after_it(index, planted, tmp_path):
    mine = shutil.copytree(planted.paths[20], tmp_path / "mine")
    index.add([mine])
    path, old = _file(index, 8), _file(index, 8).read_bytes()
    shutil.copy(planted.paths[21] / "adapter_model.safetensors", mine)
    index.add([mine])
    new = index.members[8].sha256
    path.write_bytes(old)
    assert not index.repair().adopted
    assert index.members[8].sha256 == new and not path.exists()


@pytest.mark.parametrize("how", ["gone", "overwritten", "cut", "pages"])
def test_a_manifest_that_is_lost_is_made_again_from_the_files(index, whole, how):
    manifest = index.folder / "manifest.sqlite"
    index.close()
    size = manifest.stat().st_size
    content = {
        "gone": b"", "overwritten": b"not a database" * 99, "cut": manifest.read_bytes()[: size // 2],
        "pages": manifest.read_bytes()[:4096] + b"\xff" * (size - 4096),
    }[how]  # fmt: skip
    manifest.unlink()
    if how != "gone":
        manifest.write_bytes(content)
    with Index(index.folder) as found:
        assert "made again" in found.notes[0] and "8 adapters" in found.notes[0]
        assert_same(found, whole)
        assert {m.sha256 for m in found.members} == {m.sha256 for m in whole.members}
    with Index(index.folder) as found:
        assert found.notes == []


def test_what_a_killed_writer_left_of_a_file_goes(index, whole, planted):
    path = _file(index)
    half = path.with_name(".subspace-0123456789ab-0123456789ab.tmp")
    half.write_bytes(path.read_bytes()[:50])
    assert not index.repair().notes
    assert_same(index, whole)
