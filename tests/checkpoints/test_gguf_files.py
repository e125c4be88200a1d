"""GGUF files written by the package gguf, read back; damaged ones refused in one line."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from subspace.checkpoints import open_tensors
from subspace.errors import FileError

gguf = pytest.importorskip("gguf")

MATRIX = (np.arange(4 * 32, dtype=np.float32).reshape(4, 32) - 60) / 16


def write(path, tensors, *, types=None, **metadata):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    for key, value in metadata.items():
        writer.add_float32(key.replace("_", "."), value)
    for name, array in tensors.items():
        kind = (types or {}).get(name)
        data = array if kind is None else gguf.quants.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [("F32", "float32", 0), ("F16", "float16", 0), ("BF16", "bfloat16", 0), ("Q8_0", "float32", 0.02)],
)
def test_each_type_is_read(tmp_path, kind, dtype, tolerance):
    quantised = {"x": getattr(gguf.GGMLQuantizationType, kind)}
    path = write(tmp_path / "a.gguf", {"x": MATRIX}, types=quantised, adapter_lora_alpha=16.0)
    file = open_tensors(path)
    assert file.container == "gguf"
    assert file.layout == {"x": (dtype, (4, 32))}
    assert file.metadata["adapter.lora.alpha"] == "16.0"
    assert file.metadata["general.type"] == "adapter"
    assert file.quantised == ({"x": "Q8_0"} if tolerance else {})
    assert np.abs(file.read("x") - MATRIX).max() <= tolerance
    assert np.abs(file.stored("x").rows(1, 3) - MATRIX[1:3]).max() <= tolerance


def test_a_name_says_nothing(tmp_path):
    path = write(tmp_path / "adapter.bin", {"x": MATRIX})
    assert open_tensors(path).container == "gguf"


@pytest.mark.parametrize("length", [4, 7, 12, 24, 40, 90, 150])
def test_a_file_cut_short_is_refused(tmp_path, length):
    raw = write(tmp_path / "a.gguf", {"x": MATRIX}, adapter_lora_alpha=16.0).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(raw[:length])
    with pytest.raises(FileError, match=r"Damaged GGUF file: .*cut\.gguf") as caught:
        open_tensors(tmp_path / "cut.gguf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", range(4, 200, 4))
def test_a_number_that_is_wrong_is_no_crash_and_no_long_loop(tmp_path, place):
    raw = bytearray(write(tmp_path / "a.gguf", {"x": MATRIX}, adapter_lora_alpha=16.0).read_bytes())
    raw[place : place + 8] = b"\xff\xff\xff\xff\xff\xff\xff\x7f"
    (tmp_path / "odd.gguf").write_bytes(raw)
    try:
        file = open_tensors(tmp_path / "odd.gguf")
    except FileError as error:
        assert "\n" not in str(error)
    else:
        assert all(file.read(key).shape == info.shape for key, info in file.layout.items())


def test_without_the_package_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    plain = write(tmp_path / "plain.gguf", {"x": MATRIX})
    path = write(tmp_path / "a.gguf", {"x": MATRIX}, types={"x": gguf.GGMLQuantizationType.Q8_0})
    monkeypatch.setitem(sys.modules, "gguf", None)
    np.testing.assert_array_equal(open_tensors(plain).read("x"), MATRIX)
    with pytest.raises(
        FileError, match=r"package gguf is not installed.*pip install 'lora-subspace\[gguf\]'"
    ):
        open_tensors(path)
