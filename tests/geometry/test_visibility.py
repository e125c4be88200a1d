"""What is left of delta_W in a stored type: torch's rounding, plain dense definitions, and cases by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.stored_types import STORED, ChangedByChance, grid
from subspace.geometry.visibility import Merge, Product, left_of, visibility

TORCH = {"bfloat16": "bfloat16", "float16": "float16", "float32": "float32"}


def _as_torch_stores(values, dtype):
    import torch

    kept = torch.from_numpy(np.array(values, dtype=np.float32)).to(getattr(torch, TORCH[dtype]))
    return kept.to(torch.float32).numpy()


def _as_int8(values):
    """LLM.int8's vector-wise scheme, row by row, near ties in exact fractions: the numbers, and the codes."""
    numbers, codes = np.zeros(values.shape, np.float32), np.zeros(values.shape)
    for i, row in enumerate(values.astype(np.float64)):
        peak = max(abs(value) for value in row)
        for j, value in enumerate(row):
            code = value * 127 / peak if peak else 0.0
            if abs(code % 1 - 0.5) < 1e-9:  # where rounding may have led to the other side of the tie
                code = Fraction(value) * 127 / Fraction(peak)
            codes[i, j] = round(code)  # Python rounds ties to even too
            numbers[i, j] = codes[i, j] * (peak / 127)
    return numbers, codes


def _dense(W, delta_W, dtype):
    """D and which entries change, by torch or in plain Python."""
    W, delta_W = np.asarray(W, np.float32), np.asarray(delta_W, np.float32)
    if dtype == "int8":
        before, codes = _as_int8(W)
        after, new = _as_int8(before + delta_W)
        return after.astype(np.float64) - before, codes != new
    before = _as_torch_stores(W, dtype)
    after = _as_torch_stores(before + delta_W, dtype)
    return after.astype(np.float64) - before, before != after


def _every_float32(rng):
    """Numbers of every exponent and sign, ties of both 16-bit types, subnormals, zeros."""
    bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    halves = (bits & np.uint32(0xFFFFE000)) | np.uint32(0x1000)
    values = np.concatenate([bits, ties, halves, [0, 1, 0x80000000, 0x7F7FFFFF, 0x477FEFFF, 0x477FF000]])
    values = values.astype(np.uint32).view(np.float32)
    return values[np.isfinite(values)][None]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_rounding_is_that_of_torch_bit_for_bit(dtype):
    values = _every_float32(np.random.default_rng(0))
    expected = _as_torch_stores(values, dtype)
    grid(dtype).round(values)
    assert np.array_equal(values.view(np.uint32), expected.view(np.uint32))


def test_int8_is_that_of_a_plain_implementation():
    rng = np.random.default_rng(1)
    values = (rng.standard_normal((40, 33)) * 10.0 ** rng.integers(-30, 30, (40, 1))).astype(np.float32)
    values[7] = 0
    values[8, :3] = 127, 0.5, 1.5  # ties
    numbers, codes = _as_int8(values)
    found = values.copy()
    assert np.array_equal(grid("int8").round(found), codes) and np.array_equal(found, numbers)
    # what is on the grid stays
    again = found.copy()
    assert np.array_equal(grid("int8").round(again), codes) and np.array_equal(again, found)


def test_int8_is_that_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    import torch

    rng = np.random.default_rng(2)
    half = torch.from_numpy(rng.standard_normal((32, 64))).to(torch.float16)
    codes, scales, _ = functional.int8_vectorwise_quant(half)
    values = half.to(torch.float32).numpy()
    peaks = np.abs(values).max(axis=1, keepdims=True)
    assert np.array_equal(scales.numpy(), peaks[:, 0])
    # bitsandbytes multiplies by 127 / peak in float32, so that what is a tie to it need not be one
    exact = values.astype(float) * 127 / peaks
    clear = np.abs(np.abs(exact - np.floor(exact)) - 0.5) > 1e-4
    found = grid("int8").round(values)
    assert clear.mean() > 0.99 and np.array_equal(found[clear], codes.numpy()[clear])


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0])
def test_all_numbers_are_those_of_the_dense_definition(dtype, size):
    rng = np.random.default_rng(3)
    W = rng.standard_normal((70, 50)).astype(np.float32)
    W[3], W[:, 4] = 0, 2.0
    B, A = size * rng.standard_normal((70, 3)), rng.standard_normal((3, 50))
    delta_W = Product(B, A).rows(0, 70)
    D, changed = _dense(W, delta_W, dtype)
    found = visibility(Merge(W, Product(B, A), dtype))
    wide = delta_W.astype(np.float64)
    assert (found.entries, found.changed, found.infinite) == (3500, changed.sum(), 0)
    assert found.norm_left == pytest.approx(np.linalg.norm(D) / np.linalg.norm(wide), rel=1e-12)
    cosine = (D * wide).sum() / np.linalg.norm(D) / np.linalg.norm(wide) if D.any() else math.nan
    assert found.cosine == pytest.approx(cosine, rel=1e-12, nan_ok=True)
    assert np.array_equal(Merge(W, Product(B, A), dtype).rows(0, 70), D.astype(np.float32))


def test_a_product_is_that_of_float64():
    rng = np.random.default_rng(4)
    B, A = rng.standard_normal((9, 2)), rng.standard_normal((2, 7))
    for large in (1.0, 1e40, 1e-40):
        assert Product(large * B, A / large, -0.5).rows(2, 5) == pytest.approx(-0.5 * B[2:5] @ A, rel=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_by_hand_below_half_a_step_nothing_changes_and_whole_steps_are_kept(dtype):
    rng = np.random.default_rng(5)
    W = rng.uniform(1, 2, (20, 30)).astype(np.float32)
    grid(dtype).round(W)
    step = {"bfloat16": 2.0**-7, "float16": 2.0**-10}[dtype]
    signs = rng.choice([-1.0, 1.0], W.shape)
    W[np.abs(W - 1.5) > 0.5 - 8 * step] = 1.5  # so that every sum stays between 1 and 2
    found = visibility(Merge(W, 0.49 * step * signs, dtype))
    assert found.changed == 0 and found.norm_left == 0 and math.isnan(found.cosine)
    found = visibility(Merge(W, 4 * step * signs, dtype))
    assert found.changed == W.size and (found.norm_left, found.cosine) == (1, 1)
    found = visibility(Merge(W, 0.51 * step * signs, dtype))
    assert found.changed == W.size and found.norm_left == pytest.approx(1 / 0.51)


def test_a_zero_weight_keeps_all_but_the_rounding():
    delta_W = np.random.default_rng(6).standard_normal((8, 9))
    found = visibility(Merge(np.zeros((8, 9)), delta_W, "bfloat16"))
    assert found.changed == 72 and found.cosine > 0.9999 and found.norm_left == pytest.approx(1, abs=2e-3)
    assert found.changed_isotropic == 72  # every number but zero is above half the smallest subnormal


def test_subnormals_of_float16_have_an_absolute_step():
    W = np.full((4, 4), 2.0**-20, np.float32)
    assert visibility(Merge(W, np.full((4, 4), 2.0**-26), "float16")).changed == 0
    found = visibility(Merge(W, np.full((4, 4), 2.0**-24), "float16"))
    assert (found.changed, found.norm_left, found.cosine) == (16, 1, 1)


def test_what_is_too_large_becomes_infinite_and_has_no_norm():
    W, delta_W = np.full((2, 3), 65504.0), np.zeros((2, 3))
    delta_W[0, 0] = 16.0  # half a step: ties to what would be 65536
    found = visibility(Merge(W, delta_W, "float16"))
    assert (found.infinite, found.changed) == (1, 1)
    assert math.isnan(found.norm_left) and math.isnan(found.cosine)
    assert visibility(Merge(W, delta_W, "bfloat16")).infinite == 0


def test_numbers_that_are_not_finite_are_refused():
    W = np.ones((3, 3))
    for bad in (math.nan, math.inf):
        for one, other in ((np.full((3, 3), bad), W), (W, np.full((3, 3), bad))):
            with pytest.raises(ValueRangeError, match="Not a finite number"):
                visibility(Merge(one, other, "bfloat16"))


def test_two_shapes_are_refused():
    with pytest.raises(ShapeError, match="cannot be added"):
        Merge(np.ones((2, 3)), np.ones((3, 2)), "int8")


@pytest.mark.parametrize("dtype", STORED)
def test_a_weight_stored_by_columns_gives_the_same(dtype):
    rng = np.random.default_rng(7)
    W, delta_W = rng.standard_normal((30, 40)).astype(np.float32), 0.02 * rng.standard_normal((30, 40))
    one = visibility(Merge(W, delta_W, dtype))
    other = visibility(Merge(W.T, delta_W.T, dtype, outputs_are_columns=True))
    assert one.changed == other.changed
    assert other.norm_left == pytest.approx(one.norm_left, rel=1e-12)
    assert other.changed_isotropic == pytest.approx(one.changed_isotropic, rel=1e-12)


def test_the_arrays_that_were_given_stay_as_they_are():
    rng = np.random.default_rng(8)
    W, delta_W = (rng.standard_normal((20, 20)).astype(np.float32) for _ in range(2))
    before = W.copy(), delta_W.copy()
    visibility(Merge(W, delta_W, "bfloat16"))
    assert np.array_equal(W, before[0]) and np.array_equal(delta_W, before[1])


def test_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(9)
    W, delta_W = rng.standard_normal((200, 30)), 0.01 * rng.standard_normal((200, 30))
    whole = visibility(Merge(W, delta_W, "int8"))
    monkeypatch.setattr("subspace.geometry.merging._CHUNK", 30 * 16)
    monkeypatch.setattr("subspace.geometry.visibility._PIECE", 77)
    parts = visibility(Merge(W, delta_W, "int8"))
    assert parts.changed == whole.changed
    assert parts.norm_left == pytest.approx(whole.norm_left, rel=1e-12)
    assert parts.changed_isotropic == pytest.approx(whole.changed_isotropic, rel=1e-12)


def test_numbers_of_matrices_add_up():
    rng = np.random.default_rng(10)
    W, delta_W = rng.standard_normal((20, 30)), 0.01 * rng.standard_normal((20, 30))
    top, rest = (visibility(Merge(W[rows], delta_W[rows], "bfloat16")) for rows in (slice(5), slice(5, None)))
    whole = visibility(Merge(W, delta_W, "bfloat16"))
    assert (top + rest).changed == whole.changed
    assert (top + rest).norm_left == pytest.approx(whole.norm_left, rel=1e-12)
    assert (top + rest).cosine == pytest.approx(whole.cosine, rel=1e-12)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("size", [3e-4, 3e-3, 3e-2])
def test_the_share_that_isotropic_entries_would_change_is_what_they_change(dtype, size):
    """A simulation: 20 isotropic delta_W of one norm, added and rounded."""
    rng = np.random.default_rng(11)
    size *= {"float32": 1e-4, "int8": 15}.get(dtype, 1)
    W = rng.standard_normal((60, 80)).astype(np.float32)
    grid(dtype).round(W)
    changed = []
    for _ in range(20):
        delta_W = rng.standard_normal(W.shape)
        delta_W *= size * math.sqrt(W.size) / np.linalg.norm(delta_W)
        found = visibility(Merge(W, delta_W, dtype))
        changed.append(found.changed)
    assert found.changed_isotropic > 20  # enough for the comparison to mean something
    spread = math.sqrt(found.changed_isotropic / 20)
    # entries of one row of int8 share the change of its scale, and another number can become the largest
    tolerance = 4 * spread if dtype != "int8" else 0.05 * found.changed_isotropic
    assert np.mean(changed) == pytest.approx(found.changed_isotropic, abs=tolerance)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_gaps_are_those_of_the_neighbours_of_each_number(dtype):
    """By bisection through the rounding itself, of numbers of every exponent and of powers of two."""
    from subspace.geometry.stored_types import _half_gaps

    rng = np.random.default_rng(12)
    mantissa = 7 if dtype == "bfloat16" else 10
    exponents = np.arange(0, 254 if dtype == "bfloat16" else 30)
    keys = np.concatenate([exponents << mantissa, (exponents << mantissa) + rng.integers(1, 1 << mantissa)])
    keys = keys[keys > 0]
    if dtype == "bfloat16":
        number = lambda key: (np.asarray(key).astype(np.uint32) << 16).view(np.float32).astype(np.float64)  # noqa: E731
    else:
        number = lambda key: np.asarray(key).astype(np.uint16).view(np.float16).astype(np.float64)  # noqa: E731
    below, above = _half_gaps(keys, dtype)
    assert np.array_equal(2 * below, number(keys) - number(keys - 1))
    assert np.array_equal(2 * above, number(keys + 1) - number(keys))


def test_nothing_is_expected_to_change_without_an_update():
    chance = ChangedByChance("bfloat16")
    chance.add(np.ones((2, 2), np.float32), np.ones((2, 2)), grid("bfloat16"))
    assert chance.expected(0.0) == 0.0


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_leading_directions_of_what_is_left_are_those_of_a_dense_svd(dtype):
    """A matrix too large for the dense route: Krylov over rows that are computed as they are read."""
    rng = np.random.default_rng(13)
    W = 0.02 * rng.standard_normal((560, 640)).astype(np.float32)
    B, A = rng.standard_normal((560, 3)) * [3.0, 2.0, 1.0], 3e-4 * rng.standard_normal((3, 640))
    found = left_of(Merge(W, Product(B, A), dtype), 3)
    D, _ = _dense(W, Product(B, A).rows(0, 560), dtype)
    U, S, Vh = np.linalg.svd(D)
    assert not found.exact
    assert np.allclose(found.S, S[:3], rtol=1e-4, atol=0)
    for one, other in ((found.U, U[:, :3]), (found.V, Vh[:3].T)):
        assert np.linalg.norm(one.T @ other) ** 2 / 3 == pytest.approx(1, abs=1e-3)
