"""Files that are no adapter because they hold no matrix are named for what they are, with the cure."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import subspace
from subspace.errors import FormatError, ShapeError


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {},
            r"The file holds no tensors, only metadata \(format\), in .*hollow.safetensors; save the adapter again",
        ),
        (
            {f"lora_unet_{n}_to_q.alpha": np.array(4.0) for n in range(606)},
            r"only scalars, such as alpha, and no A or B: 606 tensors of one number .*; save the adapter again",
        ),
        ({f"layers.{n}.gate": np.ones(1) for n in range(3)}, "only scalars.*3 tensors of one number"),
        (
            {f"base_model.model.{n}.q.lora_{side}.weight": np.ones(0) for n in range(2) for side in "AB"},
            r"no numbers: 4 of 4 tensors .* DeepSpeed ZeRO-3 .*; gather .*zero_to_fp32\.py",
        ),
        ({"q.lora_A": np.ones((0, 4)), "q.alpha": np.array(1.0)}, "no numbers: 1 of 2 tensors .*ZeRO-3"),
    ],
)
@pytest.mark.parametrize("base", [None, {"q.weight": np.eye(4)}])
def test_a_file_without_matrices_is_named(tmp_path, tensors, message, base):
    path = tmp_path / "hollow.safetensors"
    if tensors:
        save_file(tensors, path, metadata={"format": "pt"})
    else:  # of which safetensors 0.4.3 writes a header that is no JSON
        header = b'{"__metadata__": {"format": "pt"}}'
        path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(FormatError, match=message):
        subspace.load_adapter(path, base=base)


def test_a_placeholder_among_other_tensors_names_the_cure():
    tensors = {
        "base_model.model.q.lora_A.weight": np.ones(0),
        "base_model.model.q.lora_B.weight": np.ones(0),
        "base_model.model.score.weight": np.ones((2, 4)),
    }
    with pytest.raises(ShapeError, match=r"is empty: its shape is \[0\].*ZeRO-3.*zero_to_fp32\.py"):
        subspace.load_adapter(tensors)


def test_a_pair_of_single_numbers_is_an_adapter():
    adapter = subspace.load_adapter({"q.lora_A": np.ones((1, 1)), "q.lora_B": np.ones((1, 1))}, layout="BA")
    assert adapter["q"].r == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "git-lfs pointer.*git lfs pull",
        ),
        (b"<!DOCTYPE html><html>", "HTML page.*download it again"),
        (b"\n<!-- saved from -->\n<html>", "HTML page.*download it again"),
        (b"Entry not found", "text such as an error message, Entry not found; download it again"),
    ],
)
def test_text_in_the_place_of_weights_is_named(tmp_path, content, message):
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(content)
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.load_adapter(path)
