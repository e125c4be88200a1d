"""A cut is the best of its rank: the dense truncated SVD, Eckart and Young, and the energy that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subspace.adapters import load_adapter
from subspace.analysis.convert import convert
from subspace.analysis.truncate import truncate
from subspace.errors import FormatError, ValueRangeError


def pair(d_out, d_in, r, seed=0, spread=0.0):
    """Factors whose singular values fall by powers of ten over `spread`."""
    rng = np.random.default_rng(seed)
    weights = 10.0 ** -np.linspace(0, spread, r)
    return rng.standard_normal((d_out, r)) * weights, rng.standard_normal((r, d_in))


def adapter(*pairs, scale=0.5):
    tensors = {}
    for n, (B, A) in enumerate(pairs):
        tensors |= {f"h.{n}.q.lora_A": A, f"h.{n}.q.lora_B": B}
    return load_adapter(tensors, scale=scale, layout="BA")


def dense(M):
    return np.linalg.svd(M)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99),
    st.sampled_from([0.0, 3.0, 8.0]),
)  # fmt: skip
def test_it_is_the_dense_truncated_svd(d_out, d_in, r, k, seed, spread):
    B, A = pair(d_out, d_in, r, seed, spread)
    cut = truncate(adapter((B, A)), rank=k)
    (row,) = cut.modules
    whole = 0.5 * B @ A
    U, S, Vh = dense(whole)
    best = (U[:, : len(S)] * np.where(np.arange(len(S)) < k, S, 0)) @ Vh[: len(S)]
    got = cut.adapter["h.0.q"].delta_W()
    norm = np.linalg.norm(whole)
    if k < r:
        assert row.r_after == min(k, np.count_nonzero(1e-13 * S[0] < S))
        np.testing.assert_allclose(got, best, rtol=0, atol=1e-10 * norm)
    assert row.error == pytest.approx(np.linalg.norm(whole - best) / norm, rel=1e-6, abs=1e-10)
    assert row.error == pytest.approx(np.linalg.norm(whole - got) / norm, rel=1e-6, abs=1e-10)
    assert row.error_absolute == pytest.approx(row.error * norm, rel=1e-6, abs=1e-10)
    assert row.energy == pytest.approx(1 - row.error**2, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 99))
def test_no_matrix_of_the_rank_is_nearer(k, seed):
    """Eckart and Young, against random competitors and the cut's own neighbours."""
    B, A = pair(9, 8, 6, seed)
    cut = truncate(adapter((B, A)), rank=k)
    whole, near = 0.5 * B @ A, cut.adapter["h.0.q"]
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1, 1.0):
        P = near.B + size * rng.standard_normal(near.B.shape)
        Q = near.A + size * rng.standard_normal(near.A.shape)
        assert np.linalg.norm(whole - 0.5 * P @ Q) >= cut.modules[0].error_absolute


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 1.0), st.integers(0, 99), st.sampled_from([0.0, 1.0, 4.0]))
def test_energy_is_kept_and_one_direction_less_would_not_do(E, seed, spread):
    B, A = pair(9, 8, 6, seed, spread)
    (row,) = truncate(adapter((B, A)), energy=E).modules
    S = dense(B @ A)[1]
    share = np.cumsum(S**2) / np.sum(S**2)
    assert row.energy >= E - 1e-12
    assert share[row.r_after - 1] == pytest.approx(row.energy, abs=1e-12)
    assert row.r_after == 1 or share[row.r_after - 2] < E


def test_the_factors_are_balanced_and_the_scale_stays():
    cut = truncate(adapter(pair(9, 8, 6), scale=-3.0), rank=2)
    update = cut.adapter["h.0.q"]
    S = cut.modules[0].S
    np.testing.assert_allclose(update.B.T @ update.B, np.diag(S), atol=1e-10)
    np.testing.assert_allclose(update.A @ update.A.T, np.diag(S), atol=1e-10)
    assert update.scale.value == -3.0


def test_a_module_that_is_not_cut_keeps_its_own_factors():
    source = adapter(pair(9, 8, 2), pair(9, 8, 5))
    cut = truncate(source, rank=2)
    assert cut.adapter["h.0.q"] is source["h.0.q"]
    assert [row.flags for row in cut.modules] == [("unchanged",), ()]
    assert cut.modules[0].error == 0


def test_ranks_by_pattern_are_matched_as_peft_does():
    source = adapter(*(pair(9, 8, 6, seed) for seed in range(3)))
    cut = truncate(source, ranks={r"h\.[01]\.q": 2, "h.0.q": 4, "nothing": 1})
    assert [row.r_after for row in cut.modules] == [2, 2, 6]
    assert any(
        "No module of the adapter matches these keys of the rank pattern: h.0.q, nothing" in note
        for note in cut.notes
    )
    both = truncate(source, rank=3, ranks={"h.1.q": 1})
    assert [row.r_after for row in both.modules] == [3, 1, 3]


def test_an_untrained_module_gets_rank_one_and_its_start():
    B, A = pair(9, 8, 4)
    cut = truncate(adapter((0 * B, A), (B, A)), rank=2)
    update = cut.adapter["h.0.q"]
    assert update.r == 1 and not update.B.any()
    np.testing.assert_array_equal(update.A, A[:1])
    row = cut.modules[0]
    assert (row.error, row.energy, row.flags) == (None, None, ("untrained",))
    assert any("In 1 of 2 modules (h.0.q) delta_W is exactly zero (untrained)" in note for note in cut.notes)


def test_an_unknown_scale_leaves_the_relative_error():
    B, A = pair(9, 8, 4)
    cut = truncate({"q.lora_A": A, "q.lora_B": B}, rank=1)
    assert cut.modules[0].error_absolute is None
    assert 0 < cut.modules[0].error < 1


@pytest.mark.parametrize("limit", [{"rank": 3}, {"energy": 0.5}])
@pytest.mark.parametrize("shape", [(9, 7), (600, 520)])
def test_a_dense_delta_becomes_an_adapter(limit, shape):
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((d, 6)))[0] for d in shape)
    M = (U * [9, 6, 4, 1, 0.5, 0.1]) @ V.T
    cut = truncate({"q.delta_W": M}, **limit)
    (row,) = cut.modules
    S = dense(M)[1]
    k = row.r_after
    assert k == 3 if "rank" in limit else k == 1
    assert row.error == pytest.approx(np.linalg.norm(S[k:]) / np.linalg.norm(S), rel=1e-5)
    assert np.linalg.norm(M - cut.adapter["q"].delta_W()) == pytest.approx(row.error_absolute, rel=1e-5)
    assert convert(cut.adapter, to="peft").modules[0].r == k


def test_groups_of_a_fused_layer_are_cut_one_by_one_and_padded_to_one_rank():
    (B, A), (B2, A2) = pair(6, 8, 3, 1), pair(6, 8, 3, 2)
    B2[:, 1:] = 0
    state = {"c.lora_A": np.vstack([A, A2]), "c.lora_B": np.vstack([B, B2])}
    cut = truncate(state, rank=2)
    assert [row.r_after for row in cut.modules] == [2, 1]
    made = convert(cut.adapter, to="loralib", allow=["rounding"])
    assert (made.modules[0].r, made.modules[0].of) == (2, ("c[0]", "c[1]"))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, "Cannot tell how far to cut"),
        ({"rank": 1, "energy": 0.5}, "Cannot tell how far to cut"),
        ({"rank": 0}, "Invalid rank 0 as `rank`;"),
        ({"rank": True}, "Invalid rank True as `rank`;"),
        ({"ranks": {"q": "8"}}, "Invalid rank '8' for 'q' in `ranks`;"),
        ({"energy": 0.0}, r"share of energy 0.0.*\(0, 1\]"),
        ({"energy": 1.5}, r"share of energy 1.5.*\(0, 1\]"),
        ({"energy": float("nan")}, r"share of energy nan.*\(0, 1\]"),
    ],
)
def test_limits_that_say_nothing(limits, told):
    with pytest.raises(ValueRangeError, match=told):
        truncate(adapter(pair(4, 4, 2)), **limits)


def test_numbers_that_are_not_finite_are_refused():
    B, A = pair(4, 4, 2)
    A[0, 0] = np.nan
    for limit in ({"rank": 1}, {"rank": 9}, {"energy": 0.9}):
        with pytest.raises(ValueRangeError, match=r"in module h\.0\.q of the state dict in memory"):
            truncate(adapter((B, A)), **limit)


@pytest.mark.parametrize("cut", [{"rank": 2}, {"energy": 0.9}])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (600, 500)])
def test_a_dense_delta_of_zero_becomes_a_zero_of_rank_one(cut, shape):
    found = truncate({"q.delta_W": np.zeros(shape, "f4")}, **cut)
    (row,) = found.modules
    assert row.r_after == 1 and row.error_absolute == 0
    A, B = found.adapter["q"].A, found.adapter["q"].B
    assert (B.shape, A.shape) == ((shape[0], 1), (1, shape[1])) and not B.any()


def test_a_dense_module_needs_a_rank():
    with pytest.raises(
        FormatError, match="No rank for a dense delta_W, in module v of the state dict in memory; give `rank`"
    ):
        truncate({"q.delta_W": np.eye(3), "v.delta_W": np.eye(3)}, ranks={"q": 1})


def test_large_and_small_numbers_do_not_leave_the_range():
    B, A = pair(6, 6, 4)
    for size in (1e-150, 1e150):
        (row,) = truncate(adapter((size * B, size * A), scale=1.0), rank=2).modules
        assert row.error == pytest.approx(truncate(adapter((B, A)), rank=2).modules[0].error)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("energy", [0.9, 0.95, 0.99, 0.9999])
def test_the_energy_is_that_of_the_factors_read_back(dtype, energy, tmp_path):
    """By the dense SVD of what was written; the exact factors of the same rank keep more than the stored ones."""
    B, A = pair(30, 40, 8, spread=1.0)
    share = np.cumsum(np.linalg.svd(B @ A, compute_uv=False)[:8] ** 2)
    share /= share[-1]
    for wanted in (
        energy,
        float(share[3]),
        float(share[5]) - 1e-9,
    ):  # the last two leave nothing to round away
        cut = truncate(adapter((B, A), scale=None), energy=wanted, dtype=dtype)
        (row,) = cut.modules
        (written,) = convert(cut.adapter, to="loralib", dtype=dtype).files.values()
        (tmp_path / "out.pt").write_bytes(written)
        back = load_adapter(tmp_path / "out.pt")["h.0.q"]
        got, whole = back.B @ back.A, np.linalg.norm(B @ A)
        assert row.energy == pytest.approx(1 - (np.linalg.norm(B @ A - got) / whole) ** 2, abs=1e-9)
        if "energy_below_wanted" not in row.flags:
            assert row.energy >= wanted and (np.linalg.norm(got) / whole) ** 2 >= wanted * (1 - 1e-12)
        assert row.r_after == 8 or "energy_below_wanted" not in row.flags
        assert row.r_after == 1 or share[row.r_after - 2] < wanted + 1e-4  # one direction more at most


def test_an_energy_that_a_type_cannot_hold_is_flagged():
    B, A = pair(30, 40, 8)
    cut = truncate(adapter((B, A)), energy=1 - 1e-8, dtype="bfloat16")
    (row,) = cut.modules
    assert row.flags == ("energy_below_wanted",) and row.r_after == 8 and 0.999 < row.energy < 1 - 1e-8
    assert any(
        "loses more energy than was asked" in note and "give `dtype` float32" in note for note in cut.notes
    )
    (row,) = truncate(adapter((B, A)), energy=1 - 1e-8, dtype="float32").modules
    assert row.flags == () and row.energy >= 1 - 1e-8


def test_factors_that_hold_the_energy_already_stay():
    """Own factors of float16 are exact, while those of another cut would be rounded."""
    B, A = (M.astype(np.float16) for M in pair(30, 40, 8))
    (row,) = truncate(adapter((B, A)), energy=1.0).modules
    assert (row.r_after, row.energy, row.flags) == (8, 1.0, ("unchanged",))


@pytest.mark.parametrize("energy", [0.9, 0.99, 0.99999])
def test_a_dense_delta_keeps_the_energy_in_its_type(energy):
    M = np.random.default_rng(0).standard_normal((40, 30)) * np.geomspace(1, 1e-3, 30)
    cut = truncate({"q.diff": M.astype(np.float16)}, energy=energy)
    (row,) = cut.modules
    low = cut.adapter["q"]
    got = low.B.astype(np.float16).astype(float) @ low.A.astype(np.float16).astype(float)
    M = M.astype(np.float16).astype(float)
    assert row.energy == pytest.approx(1 - (np.linalg.norm(M - got) / np.linalg.norm(M)) ** 2, abs=1e-9)
    assert row.energy >= energy


@pytest.mark.parametrize("size", [1e-250, 1e250])
def test_the_energy_of_a_dense_delta_whose_squares_leave_float64(size):
    M = np.random.default_rng(0).standard_normal((12, 9))
    rows = [truncate({"q.diff": M * by}, energy=0.8).modules[0] for by in (1.0, size)]
    assert rows[0].r_after == rows[1].r_after and rows[0].energy == pytest.approx(rows[1].energy)
