import numpy as np
import pytest
import torch

from subspace.checkpoints.tensor_file import StoredMatrix
from subspace.checkpoints.widening import BITS, FLOATS, STORAGE, widen

CODES = np.arange(256, dtype=np.uint8)
HALF_CODES = np.arange(2**16, dtype=np.uint16)


@pytest.mark.parametrize("dtype", sorted(name for name in FLOATS if name.startswith("float8")))
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_every_8_bit_float_equals_torch(dtype, wide):
    expected = torch.from_numpy(CODES.copy()).view(getattr(torch, dtype)).to(torch.float64).numpy()
    got = widen(CODES, dtype, out=np.empty(256, wide))
    np.testing.assert_array_equal(got, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize(("dtype", "code"), [("bfloat16", "<u2"), ("float16", "<f2")])
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_every_16_bit_float_equals_torch(dtype, code, wide):
    expected = (
        torch.from_numpy(HALF_CODES.view(np.int16)).view(getattr(torch, dtype)).to(torch.float64).numpy()
    )
    got = widen(HALF_CODES.view(code), dtype, out=np.empty(2**16, wide))
    with np.errstate(invalid="ignore"):  # a signalling NaN
        np.testing.assert_array_equal(got.astype(np.float64), expected)


def test_wide_floats_are_not_copied():
    for dtype in ("float32", "float64"):
        values = np.arange(4, dtype=dtype)
        assert widen(values, dtype) is values


def test_every_float_has_a_storage_and_a_size():
    assert set(STORAGE) >= FLOATS
    assert set(BITS) >= set(STORAGE)


@pytest.mark.parametrize("dtype", sorted(FLOATS))
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_rows_into_a_buffer_equal_rows_without_one(dtype, wide):
    stored = np.arange(40).astype(STORAGE[dtype]).reshape(8, 5)
    W = StoredMatrix(stored, dtype)
    assert W.shape == (8, 5)
    buffer = np.full((6, 5), np.nan, wide)
    got = W.rows(2, 5, out=buffer)
    assert np.shares_memory(got, buffer)
    assert got.shape == (3, 5)
    np.testing.assert_array_equal(got, W.rows(2, 5).astype(wide))
    assert np.isnan(buffer[3:]).all()
    full = W.full(wide)
    assert full.dtype == wide
    np.testing.assert_array_equal(full[2:5], got)
