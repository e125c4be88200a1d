"""An output takes the place of nothing, or of one of its own kind where that is asked for; never of an input."""

from __future__ import annotations

import os

import pytest

from subspace.checkpoints.destination import require_free
from subspace.errors import FileError

_WEIGHTS = b"\x10\0\0\0\0\0\0\0{}"


def check(out, inputs=(), *, folder=False, overwrite=False):
    files = [out / "adapter_model.safetensors", out / "adapter_config.json"] if folder else [out]
    require_free(out, files, inputs=inputs, folder=folder, overwrite=overwrite)


def test_a_new_name_and_an_empty_directory_are_free(tmp_path):
    check(tmp_path / "new")
    check(tmp_path / "deep" / "new", folder=True)
    (tmp_path / "empty").mkdir()
    check(tmp_path / "empty", folder=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_input_is_never_written_over_by_any_name(tmp_path, overwrite):
    folder = tmp_path / "in"
    folder.mkdir()
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(_WEIGHTS)
    (folder / "adapter_config.json").write_text("{}")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "file").symlink_to(weights)
    os.link(weights, tmp_path / "hard")
    (tmp_path / "copy").mkdir()
    os.link(weights, tmp_path / "copy" / "adapter_model.safetensors")
    (tmp_path / "copy" / "adapter_config.json").write_text("{}")
    for out in (weights, tmp_path / "file", tmp_path / "hard", tmp_path / "in" / ".." / "in" / weights.name):
        with pytest.raises(FileError, match="it is the input"):
            check(out, [weights], overwrite=overwrite)
    for out in (folder, tmp_path / "link", tmp_path / "copy"):
        with pytest.raises(FileError, match="it is the input"):
            check(out, [weights], folder=True, overwrite=overwrite)
    for source in (folder, tmp_path / "link"):
        with pytest.raises(FileError, match="the input, or lies in its directory"):
            check(folder / "new.pt", [source], overwrite=overwrite)


def test_what_is_there_is_replaced_only_when_asked_and_of_the_same_kind(tmp_path):
    old = tmp_path / "old"
    for content in (_WEIGHTS, b"PK\x03\x04", b""):
        old.write_bytes(content)
        with pytest.raises(FileError, match=r"exists already; .*`overwrite`"):
            check(old)
        check(old, overwrite=True)
    old.write_text("my notes, all of them")
    with pytest.raises(FileError, match="another kind"):
        check(old, overwrite=True)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(FileError, match="exists already"):
        check(adapter, folder=True)
    check(adapter, folder=True, overwrite=True)


def test_an_output_of_another_kind_is_refused_even_then(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_bytes(_WEIGHTS)
    os.mkfifo(tmp_path / "pipe")
    for out, folder, message in (
        ("folder", True, "something other than an adapter"),
        ("folder", False, "regular file"),
        ("file", True, "is a file, where a directory"),
        ("pipe", False, "regular file"),
    ):
        with pytest.raises(FileError, match=message):
            check(tmp_path / out, folder=folder, overwrite=True)


def test_loops_and_names_that_no_system_allows_are_one_line(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for out in (tmp_path / "a", tmp_path / "n\0l"):
        with pytest.raises(FileError) as message:
            check(out, [tmp_path / "a"], overwrite=True)
        assert "\n" not in str(message.value)
    check(tmp_path / "new", [tmp_path / "a"])
