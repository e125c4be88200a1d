"""A directory changes in one step, and what others keep in it stays."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from subspace import load_adapter
from subspace.checkpoints import folder_swap
from subspace.checkpoints.atomic_writing import write_whole
from subspace.errors import FileError
from subspace.training import save_peft

linux = pytest.mark.skipif(sys.platform != "linux", reason="directories are exchanged on Linux alone")


@pytest.fixture
def out(tmp_path):
    """A result of two files, with files and links of the user next to them and below."""
    folder = tmp_path / "out"
    (folder / "notes" / "deep").mkdir(parents=True)
    for name in ("a", "b", "README.md", "notes/deep/1"):
        (folder / name).write_text("old")
    (folder / "link").symlink_to("README.md")
    (folder / "dangling").symlink_to("gone")
    (folder / "hidden").mkdir(mode=0o700)
    return folder


@pytest.fixture(params=["exchanged", "merged"])
def way(request, monkeypatch):
    if request.param == "merged":
        monkeypatch.setattr(folder_swap, "_exchanged", lambda *_: False)
    elif sys.platform != "linux":
        pytest.skip("directories are exchanged on Linux alone")
    return request.param


def _write(folder):
    write_whole({folder / "a": b"new", folder / "b": b"new", folder / "c" / "d": b"new"})


def _texts(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


def test_files_of_others_stay(out, way):
    readme, mode = (out / "README.md").stat(), out.stat().st_mode
    _write(out)
    assert _texts(out) == {
        **dict.fromkeys(("a", "b", "c/d"), "new"),
        **dict.fromkeys(("README.md", "notes/deep/1", "link"), "old"),
    }
    assert (out / "README.md").stat().st_ino == readme.st_ino and (out / "README.md").stat().st_nlink == 1
    assert str((out / "dangling").readlink()) == "gone" and str((out / "link").readlink()) == "README.md"
    assert (out / "hidden").stat().st_mode & 0o777 == 0o700 and out.stat().st_mode == mode
    assert os.listdir(out.parent) == ["out"]


@linux
def test_it_is_another_directory_only_where_it_was_exchanged(out, monkeypatch):
    before = out.stat().st_ino
    _write(out)
    assert out.stat().st_ino != before
    before = out.stat().st_ino
    monkeypatch.chdir(out / "notes")  # a shell in it would be left in a directory that is no more
    _write(out)
    assert out.stat().st_ino == before and _texts(out)["a"] == "new"


@linux
@pytest.mark.parametrize("why", ["many", "sticky", "no call", "no links", "not of one file system"])
def test_what_cannot_be_exchanged_is_merged(out, why, monkeypatch):
    before = out.stat().st_ino

    def fails(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    if why == "many":
        monkeypatch.setattr(folder_swap, "_MOST", 3)
    elif why == "sticky":
        out.chmod(0o1777)
    elif why == "no links":
        monkeypatch.setattr(os, "link", fails)
    else:
        monkeypatch.setattr(folder_swap, "_exchange", fails)
    _write(out)
    assert out.stat().st_ino == before and _texts(out)["c/d"] == "new" and os.listdir(out.parent) == ["out"]


def test_a_directory_behind_a_link_is_written_and_the_link_stays(out, way, tmp_path):
    (tmp_path / "link").symlink_to("out")
    _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and _texts(out)["a"] == "new"


def test_a_directory_below_that_is_a_link_is_a_step_of_its_own(out, way, tmp_path):
    (tmp_path / "far").mkdir()
    (out / "c").symlink_to(tmp_path / "far")
    _write(out)
    assert (out / "c").is_symlink() and _texts(tmp_path / "far") == {"d": "new"} and _texts(out)["a"] == "new"


def test_relative_paths(out, way, monkeypatch):
    monkeypatch.chdir(out.parent)
    write_whole({type(out)("out/a"): b"new", type(out)("out/b"): b"new"})
    assert _texts(out)["a"] == "new" and os.listdir() == ["out"]


@pytest.mark.parametrize("name", ["a/x", "README.md/x"])
def test_nothing_is_written_through_a_file(out, way, name):
    before = _texts(out)
    with pytest.raises(FileError, match="a part of the path is a file, not a directory"):
        write_whole({out / "b": b"new", out / name: b"new"})
    assert _texts(out) == before and os.listdir(out.parent) == ["out"]


def test_nothing_takes_the_place_of_a_directory(out, way):
    before = _texts(out)
    with pytest.raises(FileError, match="Is a directory"):
        write_whole({out / "b": b"new", out / "notes": b"new"})
    assert _texts(out) == before


@linux
def test_what_others_write_meanwhile_is_not_lost(out, monkeypatch):
    exchange = folder_swap._exchange

    def late(*paths):
        (out / "late").write_text("late")
        (out / "notes" / "deep" / "2").write_text("late")
        (out / "saved").write_text("late")
        (out / "saved").rename(out / "README.md")
        exchange(*paths)

    monkeypatch.setattr(folder_swap, "_exchange", late)
    _write(out)
    texts = _texts(out)
    assert [texts[name] for name in ("late", "notes/deep/2", "README.md", "a")] == [
        "late",
        "late",
        "late",
        "new",
    ]


def test_files_that_go_are_gone_with_the_directories_that_they_leave_empty(out, way):
    write_whole({out / "a": b"new"}, without=[out / "b", out / "notes" / "deep" / "1", out / "none"])
    assert _texts(out) == {"a": "new", "README.md": "old", "link": "old"}
    assert not (out / "notes" / "deep").exists() and (out / "hidden").exists()


def test_a_directory_that_is_half_written_is_not_read_and_the_next_writer_finishes_it(tmp_path):
    folder = save_peft(tmp_path / "x", {"q": (np.array([[1.0, 2.0]]), np.eye(2, 1))}, alpha=1)
    ready = folder / ".subspace-here-0123456789ab.ready"
    ready.mkdir()
    (ready / "adapter_config.json").write_text("{}")
    with pytest.raises(
        FileError, match=r"Half written: .*x, since the command .* was killed .*; run that command again"
    ):
        load_adapter(folder)
    write_whole({folder / "README.md": b"x", folder / "notes": b"y"})
    assert (folder / "adapter_config.json").read_text() == "{}" and not ready.exists()


def test_what_is_left_in_a_directory_cannot_lead_out_of_it(out, tmp_path):
    (tmp_path / "far").mkdir()
    (out / "c").symlink_to(tmp_path / "far")
    ready = out / ".subspace-here-0123456789ab.ready"
    (ready / "c").mkdir(parents=True)
    (ready / "c" / "d").write_text("hostile")
    with pytest.raises(FileError, match="Cannot write"):
        write_whole({out / "a": b"new", out / "b": b"new"})
    assert os.listdir(tmp_path / "far") == [] and (out / "a").read_text() == "old"
    folder_swap.remove(ready)
    (tmp_path / "far" / "theirs").write_text("theirs")
    ready.symlink_to(tmp_path / "far")
    write_whole({out / "a": b"new", out / "b": b"new"})
    assert os.listdir(tmp_path / "far") == ["theirs"] and not os.path.lexists(ready)


_WRITES = """
import sys
from pathlib import Path
from subspace import convert
from subspace.errors import FileError
try:
    convert(sys.argv[1], to="peft").save(sys.argv[2])
except FileError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_of_many_writers_of_a_new_adapter_one_wins(tmp_path):
    for n in range(4):
        save_peft(tmp_path / f"{n}", {"q": (np.array([[n + 1.0, 2.0]]), np.eye(2, 1))}, alpha=n + 1)
    command = [sys.executable, "-c", _WRITES]
    processes = [
        subprocess.Popen([*command, tmp_path / f"{n}", tmp_path / "out"], stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    said = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
    assert all("exists already" in text for text in said if text)
    (update,) = load_adapter(tmp_path / "out").values()
    assert update.scale.value == update.A[0, 0]
