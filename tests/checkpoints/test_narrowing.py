"""Numbers rounded as torch rounds them; files that safetensors and torch load."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load

from subspace.checkpoints.narrowing import WRITTEN, narrow
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes, torch_bytes
from subspace.checkpoints.widening import widen
from subspace.errors import FormatError, ValueRangeError

_FINITE = arrays(np.float32, 7, elements=st.floats(-(2.0**127), 2.0**127, width=32))


@given(_FINITE)
def test_bfloat16_is_torchs(values):
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(narrow(values, "bfloat16"), expected)


@pytest.mark.parametrize("dtype", WRITTEN)
@given(st.data())
def test_what_a_type_has_is_not_changed(dtype, data):
    bits = data.draw(arrays(np.uint16, 5))
    values = widen(
        bits if dtype == "bfloat16" else bits.view(np.float16),
        "bfloat16" if dtype == "bfloat16" else "float16",
    )
    values = np.where(np.isfinite(values), values, 0).astype(np.float32)
    np.testing.assert_array_equal(widen(narrow(values, dtype), dtype), values)


@pytest.mark.parametrize(("dtype", "value"), [("float16", 65520.0), ("float32", 1e39), ("bfloat16", 3.4e38)])
@pytest.mark.parametrize("sign", [1, -1])
def test_too_large(dtype, value, sign):
    with pytest.raises(ValueRangeError, match=f"too large for {dtype}"):
        narrow(np.array([1.0, sign * value]), dtype)
    with pytest.raises(ValueRangeError, match="Not a finite number"):
        narrow(np.array([np.nan]), dtype)


def _tensors():
    rng = np.random.default_rng(0)
    found = {f"x.{n}": rng.standard_normal((3, n + 1)) for n in range(len(WRITTEN))}
    made = {
        key: StoredTensor(narrow(values, dtype), dtype)
        for (key, values), dtype in zip(found.items(), WRITTEN, strict=True)
    }
    made["count"] = StoredTensor(np.array([3], np.int64), "int64")
    made["alpha"] = StoredTensor(np.array(0.5, np.float32), "float32")
    made["e5"] = StoredTensor(np.array([0x3C], np.uint8), "float8_e5m2")
    return made


@pytest.mark.parametrize("container", ["safetensors", "torch"])
def test_the_libraries_load_what_is_written(container):
    made = _tensors()
    if container == "safetensors":
        read = load(safetensors_bytes(made, {"format": "pt", "text": "\u00e4"}))
    else:
        read = torch.load(io.BytesIO(torch_bytes(made)), weights_only=True)
    assert read.keys() == made.keys()
    for key, (raw, dtype) in made.items():
        assert str(read[key].dtype) == f"torch.{dtype}" and read[key].shape == raw.shape
        if dtype in WRITTEN:
            np.testing.assert_array_equal(read[key].double().numpy(), widen(raw, dtype).astype(np.float64))


def test_every_tensor_is_aligned():
    content = safetensors_bytes(_tensors(), {})
    header = int.from_bytes(content[:8], "little")
    assert header % 8 == 0 and content[8:9] == b"{"


def test_a_type_without_a_name_is_refused():
    with pytest.raises(FormatError, match="complex64"):
        safetensors_bytes({"x": StoredTensor(np.zeros(1, np.complex64), "complex64")}, {})
