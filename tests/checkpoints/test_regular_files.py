import ast
import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import subspace.checkpoints
from subspace.checkpoints import open_index, open_tensors, read_json
from subspace.errors import FileError, UnsafeFileError

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")
OPENERS = [open_tensors, read_json]


@POSIX
@pytest.mark.parametrize("opened", OPENERS)
def test_nothing_but_a_regular_file_is_opened(tmp_path, opened):
    fifo, loop, dangling, server = (tmp_path / name for name in ("fifo", "loop", "dangling", "socket"))
    os.mkfifo(fifo)
    loop.symlink_to("loop")
    dangling.symlink_to("gone")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(server))
        for path, reason in [
            (fifo, "FIFO"), (loop, "a loop"), (dangling, "No such file"), (server, "a socket"),
            (tmp_path, "a directory"),
            (Path("/dev/zero"), "character device"), (tmp_path / "gone", "No such file"),
            (fifo / "x", "through another file"),
            (tmp_path / ("x" * 300), "too long"), (f"{tmp_path}/a\0b", "no file can have"),
            (f"{tmp_path}/\ud800", "no file can have"),
        ]:  # fmt: skip
            with pytest.raises(FileError, match=reason) as caught:
                opened(path)
            assert "\n" not in str(caught.value)
            assert str(caught.value).isprintable()


@POSIX
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_no_permission(written):
    path = written(b"{}")
    path.chmod(0)
    with pytest.raises(FileError, match="Permission denied"):
        open_tensors(path)


def test_no_permission_as_the_system_reports_it(written, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(FileError, match="Permission denied"):
        open_tensors(written(b"{}"))


@POSIX
@pytest.mark.parametrize("name", [b"\xff\xfe.st", b"a\nb.st", b"\x1b[31m.st", "🔥.st".encode(), b"--help"])
def test_any_name_is_opened_and_shown_in_one_line(tmp_path, name):
    path = os.fsencode(tmp_path) + b"/" + name
    good = safetensors.numpy.save({"A": np.ones(2, np.float32)})
    with open(path, "wb") as file:  # noqa: PTH123 - bytes
        file.write(good)
    for spelling in (path, os.fsdecode(path)):
        file = open_tensors(spelling)
        assert file.path == os.fsdecode(path)
        assert file.read("A").tolist() == [1, 1]
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(good[:-1])
    with pytest.raises(FileError, match="cut short") as caught:
        open_tensors(path)
    assert str(caught.value).isprintable()


OTHER_FILES = {
    "empty": (b"", "an empty file"),
    "short": (b"\r\n", "2 bytes"),
    "zeros": (bytes(5000), "begin with zeros"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "run git lfs pull"),
    "html": (b"<!DOCTYPE html><html>", "HTML"),
    "html with spaces": (b"\n  <HTML>", "HTML"),
    "json": (b'{"error":"Repository not found"}', "JSON"),
    "gzip": (gzip.compress(b"x" * 99), "gunzip"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG"),
    "ggml": (b"ggla\x01\0\0\0" + bytes(99), "a GGML LoRA"),
    "tar": (b"storages".ljust(257, b"\0") + b"ustar" + bytes(300), "tar"),
    "text": (b"hello world, this is text\n", "text such as an error message, hello world"),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_what_is_no_checkpoint_is_named(written, case):
    raw, reason = OTHER_FILES[case]
    with pytest.raises(FileError, match=reason):
        open_tensors(written(raw))


@pytest.mark.parametrize("raw", [b"\x80\x02}.", b"\x80\x04\x95" + bytes(8), b"cos\nsystem\n(S'true'\ntR."])
def test_a_bare_pickle_is_unsafe(written, raw):
    with pytest.raises(UnsafeFileError, match=r"torch\.save did not write"):
        open_tensors(written(raw))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "Invalid JSON file: Expecting value"),
        (b'{"r": 4,', "Invalid JSON file: Expecting property name"),
        (b"[1]", "top level is a list"),
        (b"null", "top level is null"),
        (b'{"r": 4, "r": 8}', "the key r appears twice"),
        (b'{"r": NaN}', "NaN"),
        (b'{"r": -Infinity}', "Infinity"),
        (b'{"r": 1e999}', "out of range"),
        (b'{"r": ' + b"9" * 5000 + b"}", "digits is out of range"),
        (b'{"a":' + b"[" * 200_000, "nested too deeply"),
        (b'{"r": "caf\xe9"}', "not UTF-8"),
        (json.dumps({"r": 4}).encode("utf-16"), "not UTF-8"),
        (b'{"x": "' + b"y" * 2000 + b'"}', "more than 1000 bytes"),
    ],
)
def test_each_ambiguous_configuration_is_refused(written, raw, reason):
    with pytest.raises(FileError, match=reason) as caught:
        read_json(written(raw, "adapter_config.json"), limit_bytes=1000 if "1000" in reason else 10**7)
    assert "adapter_config.json" in str(caught.value)


def test_a_byte_order_mark_is_allowed(written):
    assert read_json(written(b'\xef\xbb\xbf{"r": 4, "x": [1.5, null]}')) == {"r": 4, "x": [1.5, None]}


def test_opening_a_safetensors_file_imports_nothing_heavy(written):
    path = written(safetensors.numpy.save({"A": np.ones(2, np.float32)}))
    program = (
        "import sys; from subspace.checkpoints import open_tensors; open_tensors(sys.argv[1]).read('A')\n"
        "print([m for m in ('torch', 'scipy', 'safetensors', 'zipfile', 'pickle', 'pickletools') "
        "if m in sys.modules and m not in before])"
    )
    program = "import sys, numpy; before = set(sys.modules)\n" + program
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_way_around_the_checks_is_in_the_source():
    folder = Path(subspace.checkpoints.__file__).parent.parent
    for source in folder.rglob("*.py"):
        code = source.read_text(encoding="utf-8")
        for way in (
            "weights_only=False",
            "pickle.load",
            "allow_pickle=True",
            "extractall",
            "np.load(",
            "eval(code",
        ):
            assert way not in code, f"{way} in {source}"
        # nothing is mapped into memory, where another program could change it or take it away
        assert "import mmap" not in code and "memmap" not in code, source
        # no reader but ours sees a pickle
        calls = (node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
        assert "torch.load" not in map(ast.unparse, calls), source


def test_open_index_names_a_missing_path(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        open_index(tmp_path / "gone")
