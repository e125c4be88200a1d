"""What is checked is what is read: one open file, whose changes are noticed, for every container."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import threading

import numpy as np
import pytest
import safetensors.numpy
import torch

import subspace
from subspace.checkpoints import open_index, open_tensors
from subspace.checkpoints.held_file import HeldFile
from subspace.errors import FileError

A = np.arange(60_000, dtype=np.float32).reshape(200, 300)
CHANGED = r"The file changed while it was being read: .*weights; read it again when nothing writes to it"


def torch_bytes(*, legacy=False):
    buffer = io.BytesIO()
    torch.save({"A": torch.from_numpy(A)}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def numpy_bytes(save, *arrays, **named):
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def gguf_bytes():
    header = b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"A" + struct.pack("<IQQIQ", 2, 300, 200, 0, 0)
    return header + bytes(-len(header) % 32) + A.tobytes()


CONTENTS = {
    "safetensors": ("A", safetensors.numpy.save({"A": A})),
    "torch zip": ("A", torch_bytes()),
    "torch legacy": ("A", torch_bytes(legacy=True)),
    "npy": ("", numpy_bytes(np.save, A)),
    "npz": ("A", numpy_bytes(np.savez, A=A)),
    "gguf": ("A", gguf_bytes()),
}
every_container = pytest.mark.parametrize("container", CONTENTS)


@every_container
def test_a_file_is_opened_once_and_all_is_read_from_there(written, monkeypatch, container):
    key, raw = CONTENTS[container]
    path = written(raw)
    opened = []
    system = os.open
    monkeypatch.setattr(
        os, "open", lambda name, *rest: (opened.append(os.fspath(name)), system(name, *rest))[1]
    )
    file = open_tensors(path)
    path.unlink()
    path.write_bytes(b"another file under the same name")
    assert file.container == container
    np.testing.assert_array_equal(file.read(key), A)
    np.testing.assert_array_equal(file.stored(key).rows(3, 5), A[3:5])
    np.testing.assert_array_equal(file.stored(key).full(np.float64), A)
    assert file.sha256() == hashlib.sha256(raw).hexdigest()
    assert opened.count(str(path)) == 1


@every_container
@pytest.mark.parametrize("length", [0, 1000, -1])
def test_a_file_that_is_cut_short_meanwhile_is_one_clear_line(written, container, length):
    key, raw = CONTENTS[container]
    path = written(raw)
    file = open_tensors(path)
    os.truncate(path, length if length >= 0 else len(raw) - 1)
    for read in (
        lambda: file.read(key),
        lambda: file.raw(key),
        lambda: file.stored(key).rows(0, 200),
        lambda: file.stored(key).rows(0, 200, out=np.empty((200, 300), np.float32)),
        lambda: file.stored(key).rows(0, 200, out=np.empty((200, 300))),
        file.sha256,
    ):
        with pytest.raises(FileError, match=CHANGED) as caught:
            read()
        assert "\n" not in str(caught.value)


@every_container
def test_a_file_that_is_written_over_meanwhile_is_one_clear_line(written, container):
    key, raw = CONTENTS[container]
    path = written(raw)
    file = open_tensors(path)
    with path.open("r+b") as other:
        other.seek(len(raw) - 5000)
        other.write(bytes(8))
    os.utime(path, ns=(1, 1))  # the clock of a file system may be coarse
    with pytest.raises(FileError, match=CHANGED):
        file.read(key)
    with pytest.raises(FileError, match=CHANGED):
        file.sha256()


def test_a_file_that_changes_before_its_header_is_read(written):
    file = HeldFile(written(CONTENTS["safetensors"][1]))
    os.truncate(file.path, 100)
    with pytest.raises(FileError, match=CHANGED):
        open_tensors(file)


def test_a_shard_that_is_another_file_now(tmp_path):
    names = {f"{n}.weight": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    for key, shard in names.items():
        (tmp_path / shard).write_bytes(safetensors.numpy.save({key: A}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    base = open_index(tmp_path)
    base.read("1.weight")
    second = tmp_path / names["2.weight"]
    raw = second.read_bytes()
    second.unlink()
    (tmp_path / "new").write_bytes(raw)
    (tmp_path / "new").rename(second)
    with pytest.raises(FileError, match=r"The file changed while it was being read: .*model-00002"):
        base.read("2.weight")
    with pytest.raises(FileError, match=r"The file changed while it was being read: .*model-00002"):
        base.sha256()


def test_an_analysis_of_a_file_that_is_cut_short_under_it_ends_in_an_error(written):
    tensors = {
        f"l.{n}.lora_{x}": np.ones((4, 64) if x == "A" else (64, 4), "f4") for n in range(300) for x in "AB"
    }
    path = written(safetensors.numpy.save(tensors), "a.safetensors")

    def cut(done, _):
        if done == 5:
            os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(FileError, match="The file changed while it was being read"):
        subspace.inspect(path, scale=1.0, progress=cut)


def test_pieces_and_offsets_without_pread(written, monkeypatch):
    """The way of Windows, where a descriptor has one position for all threads."""
    raw = bytes(range(256)) * 10_000
    monkeypatch.delattr(os, "preadv", raising=False)
    monkeypatch.delattr(os, "pread", raising=False)
    file = HeldFile(written(raw))
    wrong = []

    def read():
        for start in range(0, len(raw), 9_973):
            if file.read(start, 5_000) != raw[start : start + 5_000]:
                wrong.append(start)
            if (
                file.array(start, min(3_000, len(raw) - start), np.uint8).tobytes()
                != raw[start : start + 3_000]
            ):
                wrong.append(start)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert b"".join(bytes(piece) for piece in file.pieces()) == raw
    assert file.read(len(raw) - 3, 100) == raw[-3:] and file.read(len(raw) + 3, 100) == b""
