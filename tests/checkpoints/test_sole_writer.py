"""One writer at a time; what killed ones left is removed, and nothing of one that is alive."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from subspace.checkpoints.atomic_writing import one_writer, write_whole
from subspace.checkpoints.sole_writer import is_temporary, sole_writer, temporary, tidy
from subspace.errors import FileError

_HOLDS = """
import sys, time
from pathlib import Path
from subspace.checkpoints.sole_writer import sole_writer, temporary
target = Path(sys.argv[1])
with sole_writer(target):
    temporary(target).write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _holder(target, seconds=60.0):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, target, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("kind", ["file", "directory", "missing"])
def test_the_second_writer_says_who_holds_it(tmp_path, kind):
    target = tmp_path / "out"
    {"file": target.touch, "directory": target.mkdir, "missing": lambda: None}[kind]()
    holder = _holder(target)
    what = "using the directory" if kind == "directory" else "writing"
    with (
        pytest.raises(FileError, match=f"Another process is {what} .*out; wait for process {holder.pid}, or"),
        sole_writer(target, wait=0),
    ):
        pass
    tidy(tmp_path)
    assert sum(is_temporary(name) for name in os.listdir(tmp_path)) == 2, "its files were touched"
    holder.kill()
    holder.communicate()
    with sole_writer(target, wait=0):
        assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []
    assert [name for name in os.listdir(tmp_path) if is_temporary(name)] == []


def test_the_second_writer_waits_and_then_sees_what_the_first_wrote(tmp_path):
    target = tmp_path / "out"
    holder = _holder(target, seconds=0.5)
    write_whole({target: b"second"})
    holder.communicate()
    assert target.read_bytes() == b"second" and os.listdir(tmp_path) == ["out"]


def test_threads_wait_for_each_other(tmp_path):
    seen = []

    def work():
        with one_writer(tmp_path / "out"):
            seen.append("in")
            write_whole({tmp_path / "out": b"x"})
            seen.append("out")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["in", "out"] * 4


def test_what_a_killed_process_left_is_removed_anywhere_in_the_directory_that_is_written(tmp_path):
    (tmp_path / "out").mkdir()
    left = [tmp_path / ".subspace-0123456789ab.lock", tmp_path / "out" / ".subspace-here-0123456789ab.tmp"]
    left += [temporary(tmp_path / "out"), temporary(tmp_path / "out" / "x")]
    for path in left:
        path.touch()
    theirs = tmp_path / ".subspace-notes.tmp"
    theirs.touch()
    write_whole({tmp_path / "out" / "a": b"1", tmp_path / "out" / "b": b"2"})
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "b"] and theirs.exists()
    tidy(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [theirs.name, "out"]


def test_directories_that_were_made_for_nothing_are_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b").is_dir()
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_link_and_its_directory_have_one_lock(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    monkeypatch.chdir(tmp_path)
    with sole_writer(tmp_path / "out"):
        for name in ("link", "link/", "out/../out"):
            with (
                pytest.raises(FileError, match="Another process"),
                sole_writer(tmp_path / name, wait=0, within=False),
            ):
                pass


def test_the_lock_is_inside_where_the_parent_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with sole_writer(tmp_path / "out"):
        assert os.listdir(tmp_path / "out") == [".subspace-here.lock"]
        write_whole({tmp_path / "out" / "a": b"1", tmp_path / "out" / "b": b"2"})
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "b"]
