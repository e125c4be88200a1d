import io
import json
import os

import numpy as np
import pytest
import safetensors.numpy
import torch

from subspace.checkpoints import open_index, open_tensors
from subspace.errors import FileError, FormatError, UnsafeFileError

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Q, V = np.ones((4, 4), np.float32), np.full((2, 4), 2, np.float32)


@pytest.fixture
def checkpoint(tmp_path):
    """A directory of two shards; `change` updates the weight_map."""

    def make(change=None, *, index=None):
        (tmp_path / FIRST).write_bytes(safetensors.numpy.save({"q.weight": Q}))
        (tmp_path / SECOND).write_bytes(safetensors.numpy.save({"v.weight": V}))
        weight_map = {"q.weight": FIRST, "v.weight": SECOND, **(change or {})}
        text = json.dumps({"metadata": {}, "weight_map": weight_map}) if index is None else index
        (tmp_path / "model.safetensors.index.json").write_text(text)
        return tmp_path

    return make


def test_a_directory_and_its_index_give_the_same_tensors(checkpoint):
    directory = checkpoint()
    for path in (directory, directory / "model.safetensors.index.json"):
        file = open_index(path)
        assert file.container == "sharded safetensors"
        assert list(file.layout) == ["q.weight", "v.weight"]
        assert file.layout["v.weight"] == ("float32", (2, 4))
        np.testing.assert_array_equal(file.read("q.weight"), Q)
        np.testing.assert_array_equal(file.stored("v.weight").full(), V)
        file.release()
        np.testing.assert_array_equal(file.read("v.weight"), V)
        assert "k.weight" not in file.layout
        with pytest.raises(FormatError, match=r"No such tensor: k\.weight"):
            file.read("k.weight")


def test_the_digest_follows_every_shard(checkpoint):
    directory = checkpoint()
    before = open_index(directory).sha256()
    assert before == open_index(directory).sha256()
    (directory / SECOND).write_bytes(safetensors.numpy.save({"v.weight": V + 1}))
    assert open_index(directory).sha256() != before


def test_torch_shards(tmp_path):
    buffer = io.BytesIO()
    torch.save({"q.weight": torch.from_numpy(Q)}, buffer)
    (tmp_path / "pytorch_model-00001-of-00001.bin").write_bytes(buffer.getvalue())
    index = {"weight_map": {"q.weight": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    file = open_index(tmp_path)
    assert file.container == "sharded torch"
    np.testing.assert_array_equal(file.read("q.weight"), Q)


def test_the_links_of_the_hub_cache_are_followed(checkpoint, tmp_path_factory):
    snapshot = tmp_path_factory.mktemp("snapshots")
    for entry in checkpoint().iterdir():
        (snapshot / entry.name).symlink_to(entry)
    np.testing.assert_array_equal(open_index(snapshot).read("v.weight"), V)


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "../x.safetensors", "/etc/passwd", "a/x.safetensors", "sub/../" + FIRST, "a\\x.safetensors",
     "C:x.safetensors", "a\0.safetensors", "pytorch_model.bin", "x.txt", 7, None, ["x"], True],
)  # fmt: skip
def test_a_shard_must_be_a_plain_name_of_the_right_kind(checkpoint, value):
    with pytest.raises(UnsafeFileError, match="The index does not name a file next to it for") as caught:
        open_index(checkpoint({"q.weight": value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "index", ["{}", "[]", '{"weight_map": [1]}', '{"weight_map": {}}', '{"weight_map": {', ""]
)
def test_an_index_without_a_map(checkpoint, index):
    with pytest.raises(FileError, match=r"model\.safetensors\.index\.json"):
        open_index(checkpoint(index=index))


def test_a_missing_shard_is_named_at_once(checkpoint):
    directory = checkpoint()
    (directory / SECOND).unlink()
    with pytest.raises(FileError, match=SECOND):
        open_index(directory)


def test_a_damaged_shard_is_named_when_it_is_needed(checkpoint):
    directory = checkpoint()
    (directory / SECOND).write_bytes(safetensors.numpy.save({"v.weight": V})[:-1])
    file = open_index(directory)
    np.testing.assert_array_equal(file.read("q.weight"), Q)
    with pytest.raises(FileError, match=SECOND):
        file.read("v.weight")


@pytest.mark.parametrize("first", ["q.weight", "v.weight"])
def test_a_tensor_must_be_in_the_shard_that_the_index_says(checkpoint, first):
    file = open_index(checkpoint({"v.weight": FIRST, "w.weight": SECOND}))
    if first == "q.weight":
        assert file.layout["q.weight"].shape == (4, 4)
    with pytest.raises(FileError, match=rf"No tensor v\.weight in the shard.*{FIRST}"):
        file.read("v.weight")


def test_a_pickle_under_a_safetensors_name_is_refused(checkpoint):
    directory = checkpoint()
    buffer = io.BytesIO()
    torch.save({"q.weight": torch.ones(2)}, buffer)
    (directory / FIRST).write_bytes(buffer.getvalue())
    with pytest.raises(UnsafeFileError, match="Wrong kind of shard"):
        open_index(directory).read("q.weight")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_a_fifo_as_shard_does_not_block(checkpoint):
    directory = checkpoint({"q.weight": "pipe.safetensors"})
    os.mkfifo(directory / "pipe.safetensors")
    with pytest.raises(FileError, match="FIFO"):
        open_index(directory)


def test_a_directory_without_or_with_two_indices(tmp_path):
    with pytest.raises(FileError, match="No index of shards"):
        open_index(tmp_path)
    for name in ("a.safetensors.index.json", "b.safetensors.index.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(FileError, match="2 indices of shards"):
        open_index(tmp_path)


def test_one_file_is_not_a_directory(checkpoint):
    with pytest.raises(FileError, match="a directory"):
        open_tensors(checkpoint())
