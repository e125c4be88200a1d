"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from subspace.checkpoints.atomic_writing import may_replace, write_whole
from subspace.errors import FileError


def test_all_files_are_written_and_nothing_else(tmp_path):
    write_whole({tmp_path / "deep" / "a": b"1", tmp_path / "deep" / "b": b"2"})
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["a", "b"]
    assert (tmp_path / "deep" / "b").read_bytes() == b"2"


def test_one_that_cannot_be_written_leaves_all_as_they_were(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match=r"Cannot write .*/a, .*: a part of the path is a file"):
        write_whole({tmp_path / "a": b"new", tmp_path / "file" / "b": b"x"})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "file"]


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        write_whole({tmp_path / "a": b"new"})
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"keep")
    (tmp_path / "link").symlink_to("real")
    may_replace(tmp_path / "link", (b"x",))
    write_whole({tmp_path / "link": b"new"})
    assert (tmp_path / "real").read_bytes() == b"keep"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("content", [b"", b"{ours"])
def test_an_empty_file_or_one_of_ours_may_be_replaced(tmp_path, content):
    path = tmp_path / "out"
    path.write_bytes(content)
    may_replace(path, (b"{ours",))
    may_replace(Path(tmp_path / "absent"), (b"{ours",))


def test_a_file_of_another_kind_and_a_directory_are_not_replaced(tmp_path):
    (tmp_path / "theirs").write_bytes(b"{}")
    with pytest.raises(FileError, match="it is a file of another kind"):
        may_replace(tmp_path / "theirs", (b"{ours",))
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FileError, match="not a regular file"):
            may_replace(other, (b"{ours",))
