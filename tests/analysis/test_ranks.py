"""One rule of rank: `inspect`, `compare` and `truncate` count the same directions, those that the numbers hold."""

import numpy as np
import oracles
import pytest

import subspace

TYPES = ["float16", "float32"]


def ranks(adapter):
    """The rank of the only module by `inspect`, by `compare` on both sides of delta_W, and by `truncate`."""
    (row,) = subspace.inspect(adapter).modules
    sides = subspace.compare(adapter, adapter, side=("left", "right")).modules
    found = {row.rank, *(side.rank_first for side in sides)}
    if row.rank < row.r or "dense" in row.flags:  # factors of full rank are not cut by this
        limit = row.r if "dense" in row.flags else row.r - 1
        found.add(len(subspace.truncate(adapter, rank=limit).modules[0].S))
    # all the energy, to 14 digits
    assert len(subspace.truncate(adapter, energy=1.0).modules[0].S) <= row.rank
    return found


def random(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def spread(shape, dtype, seed, kappa):
    """A matrix of full rank whose singular values cover a range, as it is stored."""
    rng = np.random.default_rng(seed)
    r, d = min(shape), max(shape)
    M = oracles.with_condition(r, d, kappa, rng)
    return (M if shape == M.shape else M.T).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kappa", [10, 3e3])
def test_a_kronecker_product_of_full_blocks_has_the_product_of_their_ranks(dtype, kappa):
    w1, w2 = spread((8, 8), dtype, 0, kappa), spread((12, 12), dtype, 1, kappa)
    assert ranks({"q.lokr_w1": w1, "q.lokr_w2": w2}) == {96}
    row = subspace.inspect({"q.lokr_w1": w1, "q.lokr_w2": w2}).modules[0]
    S = [np.linalg.svd(w.astype(np.float64), compute_uv=False) for w in (w1, w2)]
    np.testing.assert_allclose(row.S, np.sort(np.outer(*S).ravel())[::-1], rtol=1e-9)
    assert row.stable_rank == pytest.approx(np.sum(row.S**2) / row.S[0] ** 2)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_kronecker_product_with_factors_has_the_product_of_their_ranks(dtype):
    parts = {
        "lokr_w1": random((6, 6), dtype, 0),
        "lokr_w2_a": spread((30, 3), dtype, 1, 100),
        "lokr_w2_b": spread((3, 30), dtype, 2, 100),
        "alpha": np.float32(3),
    }
    assert ranks({f"q.{name}": part for name, part in parts.items()}) == {18}
    low = {**parts, "lokr_w1": np.outer(np.arange(1, 7), np.arange(2, 8)).astype(dtype)}
    assert ranks({f"q.{name}": part for name, part in low.items()}) == {3}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("r", "rank"), [(2, 4), (5, 25), (7, 40)])
def test_an_element_wise_product_has_the_product_of_the_ranks_up_to_its_size(dtype, r, rank):
    parts = {
        f"q.hada_w{n}_{side}": random(shape, dtype, seed)
        for seed, (n, side, shape) in enumerate(
            [(1, "a", (40, r)), (1, "b", (r, 40)), (2, "a", (40, r)), (2, "b", (r, 40))]
        )
    }
    assert ranks({**parts, "q.alpha": np.float32(r)}) == {rank}


@pytest.mark.parametrize("dtype", [*TYPES, "float64"])
@pytest.mark.parametrize("power", [1, 2, 4])
def test_a_stored_delta_keeps_what_stands_above_its_rounding(dtype, power):
    """Every value that stands clearly above the rounding counts, none that is clearly below; against the exact one."""
    rng = np.random.default_rng(0)
    n = 120
    S = np.arange(1, n + 1.0) ** -power
    M = oracles.haar(n, n, rng) * S @ oracles.haar(n, n, rng).T
    stored = M.astype(dtype)
    lost = np.linalg.norm(stored.astype(np.float64) - M, 2) if dtype != "float64" else 0
    (rank,) = ranks({"q.diff": stored})
    assert np.count_nonzero(4 * lost < S) <= rank <= max(np.count_nonzero(lost < S), 1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("r", [1, 8, 30])
def test_the_rounding_of_a_stored_delta_is_no_rank(dtype, r):
    M = (random((90, r), "float64", 0) @ random((r, 70), "float64", 1)).astype(dtype)
    assert ranks({"q.diff": M}) == {r}


def test_a_long_spectrum_of_a_stored_delta_has_its_directions():
    """Below sqrt(eps) of the largest value a Gram matrix holds nothing, while numbers of float32 still do."""
    rng = np.random.default_rng(0)
    n, k = 300, 12
    U, V = oracles.haar(n, k, rng), oracles.haar(n, k, rng)
    S = np.concatenate([[1.0], np.geomspace(1e-3, 2e-7, k - 1)])
    stored = (U * S @ V.T).astype(np.float32)
    assert ranks({"q.diff": stored}) == {k}
    from subspace.geometry.dense_frames import dense_frame

    found = dense_frame(stored, resolution=2.0**-23)
    _, true_S, true_V = np.linalg.svd(stored.astype(np.float64))
    np.testing.assert_allclose(found.S, true_S[:k], rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(found.vectors() * true_V[:k].T, axis=0)), 1, atol=1e-6)


def test_columns_that_cancel_are_no_rank_and_a_wide_range_is():
    rng = np.random.default_rng(0)
    b, a = rng.standard_normal((60, 20)), rng.standard_normal((20, 60))
    cancelled = {"q.lora_A": np.vstack([a, -a[:10]]), "q.lora_B": np.hstack([b, b[:, :10]])}
    assert subspace.inspect(cancelled).modules[0].rank == 10
    B = oracles.haar(300, 128, rng) * np.geomspace(1, 1e-6, 128)
    A = np.geomspace(1, 1e-6, 128)[:, None] * oracles.haar(300, 128, rng).T
    wide = {"q.lora_A": A, "q.lora_B": B}
    assert subspace.inspect(wide).modules[0].rank == 128
    assert subspace.compare(wide, wide, side="left").modules[0].rank_first == 128
