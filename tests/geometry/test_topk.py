"""Leading triplets against a dense SVD, from arrays and from rows, and what the estimate promises."""

from functools import cache

import numpy as np
import oracles
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import leading, project


class Reader:
    """A matrix that is only handed out by rows, and counts them."""

    def __init__(self, W):
        self._W, self.shape, self.read = W, W.shape, 0

    def rows(self, start, stop, out=None):
        self.read += stop - start
        np.copyto(out, self._W[start:stop], casting="same_kind")
        return out


@cache
def power_law(shape, power, seed=0):
    rng = np.random.default_rng(seed)
    p = min(shape)
    U, V = (np.linalg.qr(rng.standard_normal((n, p)))[0] for n in shape)
    S = np.arange(1, p + 1.0) ** -power
    W = (U * S @ V.T).astype(np.float32)
    W.flags.writeable = S.flags.writeable = False  # tests share them
    return W, S


def spiked(n, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, n)) / np.sqrt(n)
    return (W + oracles.haar(n, 4, rng) * [9, 7, 5, 4] @ oracles.haar(n, 4, rng).T).astype(np.float32)


@pytest.mark.parametrize("shape", [(800, 800), (600, 1500), (1500, 600)])
@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("k", [1, 8, 40])
def test_large_matrices(shape, power, k):
    W, S = power_law(shape, power)
    found = leading(W, k)
    F = np.linalg.norm(S[:k])
    assert not found.exact
    assert abs(found.F / F - 1) <= found.error <= 1e-3
    assert found.F <= F * (1 + 1e-6)
    np.testing.assert_allclose(found.S, S[:k], rtol=4e-2)
    assert found.sigma_next == pytest.approx(S[k], rel=0.05)
    assert found.norm == pytest.approx(np.linalg.norm(S), rel=2e-6)
    assert found.fourth_moment == pytest.approx(np.sum(S**4), rel=0.06)
    np.testing.assert_allclose(found.U.T @ found.U, np.eye(k), atol=1e-5)
    np.testing.assert_allclose(found.V.T @ found.V, np.eye(k), atol=1e-5)
    assert np.linalg.norm(project(W, found.U, found.V)) == pytest.approx(F, rel=1e-3)


def test_a_bulk_with_spikes():
    W = spiked(700)
    S = oracles.product_svd(W, np.eye(700))[1]
    for k in (4, 6):
        found = leading(W, k, tol=1e-4)
        assert abs(found.F / np.linalg.norm(S[:k]) - 1) <= found.error <= 1e-4
    # two of six directions lie in the bulk: nothing separates them from the next
    assert found.S[-1] / found.sigma_next < 1.05


@pytest.mark.parametrize("permuted", [False, True])
def test_directions_along_single_rows_are_not_missed(permuted):
    """Nothing mixes the rows of a diagonal matrix, so a start that leaves one out would never find it."""
    n, k = 640, 40
    S = np.arange(1, n + 1.0) ** -0.3
    order = np.random.default_rng(0).permutation(n) if permuted else np.arange(n)
    found = leading(np.diag(S[order]), k, tol=1e-4)
    assert abs(found.F / np.linalg.norm(S[:k]) - 1) <= 1e-4
    np.testing.assert_allclose(found.S, S[:k], rtol=2e-2)


def test_a_smaller_tolerance_costs_passes_and_buys_digits():
    W, S = power_law((700, 700), 0.5)
    loose, tight = leading(W, 4, tol=1e-2), leading(W, 4, tol=1e-6)
    assert loose.passes < tight.passes
    np.testing.assert_allclose(tight.S, S[:4], rtol=1e-6)


def test_passes_are_bounded_and_the_estimate_tells():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((700, 700)).astype(np.float32)
    found = leading(flat, 20, tol=1e-6, max_passes=3)
    assert found.passes == 3
    assert found.error > 1e-6
    F = np.linalg.norm(np.linalg.svd(flat, compute_uv=False)[:20])
    assert 0 < 1 - found.F / F <= found.error


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_type_from_array_or_rows(dtype):
    W = power_law((600, 640), 1.0)[0].astype(dtype)
    rows = Reader(W)
    by_rows, by_array = leading(rows, 4), leading(W, 4)
    np.testing.assert_array_equal(by_rows.S, by_array.S)
    assert rows.read == 600 * by_rows.passes
    again = leading(W, 4)
    np.testing.assert_array_equal(again.U, by_array.U)


def test_small_matrices_are_exact():
    W = np.random.default_rng(0).standard_normal((30, 20))
    _, S, _ = oracles.product_svd(W, np.eye(20))
    found = leading(W, 3)
    assert found.exact
    assert (found.error, found.passes) == (0, 1)
    np.testing.assert_allclose(found.S, S[:3], rtol=1e-12)
    assert found.sigma_next == pytest.approx(S[3])
    assert found.norm == pytest.approx(np.linalg.norm(W))
    assert found.fourth_moment == pytest.approx(np.sum(S**4))
    everything = leading(W, 99)
    assert everything.S.shape == (20,)
    assert everything.sigma_next == 0
    assert leading(np.eye(600), 100).exact


@pytest.mark.parametrize("shape", [(20, 30), (600, 700)])
def test_zero_matrix_has_no_directions(shape):
    found = leading(np.zeros(shape), 4)
    assert found.S.shape == (0,)
    assert (found.F, found.norm, found.sigma_next) == (0, 0, 0)


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_deficient_rank(rank):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((600, rank)), rng.standard_normal((rank, 700))
    found = leading(left @ right, 8)
    S = oracles.product_svd(left, right)[1]
    k = min(rank, 8)
    assert found.S.shape == (k,)
    np.testing.assert_allclose(found.S, S[:k], rtol=1e-4)
    assert found.U.shape == (600, k)


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e300, 1e-300])
def test_extreme_values(scale):
    W, S = power_law((600, 600), 1.0)
    found = leading(W.astype(np.float64) * scale, 4)
    np.testing.assert_allclose(found.S / scale, S[:4], rtol=1e-3)
    assert found.norm / scale == pytest.approx(np.linalg.norm(S), rel=1e-5)
    core = project(W.astype(np.float64) * scale, found.U, found.V)
    np.testing.assert_allclose(np.diag(core) / scale, S[:4], rtol=1e-3)


@pytest.mark.parametrize("shape", [(20, 30), (600, 700)])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_not_finite_is_refused(shape, bad, dtype):
    W = np.ones(shape, dtype=dtype)
    W[-1, 3] = bad
    with pytest.raises(ValueRangeError, match="Not a finite number"):
        leading(W, 2)
    with pytest.raises(ValueRangeError, match="Not a finite number"):
        project(W, np.eye(shape[0])[:, :2], np.eye(shape[1])[:, :2])


def test_projection_is_the_dense_one():
    rng = np.random.default_rng(0)
    W, U, V = rng.standard_normal((700, 900)), rng.standard_normal((700, 3)), rng.standard_normal((900, 5))
    expected = U.T @ W @ V
    np.testing.assert_allclose(project(W, U, V), expected, atol=1e-6 * np.linalg.norm(expected) * 10)
    np.testing.assert_allclose(project(Reader(W), U, V), project(W, U, V), atol=1e-3)
    assert project(W, U[:, :0], V).shape == (0, 5)
    assert (project(0 * W, U, V) == 0).all()


def test_a_tiny_projection_is_not_mistaken_for_a_small_matrix():
    W = np.zeros((6, 6))
    W[0, 0] = 1.0
    core = project(W, np.eye(6)[:, 1:2], np.eye(6)[:, 1:2])
    assert core[0, 0] == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueRangeError, match="k = 0 is too small"):
        leading(np.eye(3), 0)
    with pytest.raises(ShapeError, match="real numbers"):
        leading(np.eye(3) * 1j, 1)
    with pytest.raises(ShapeError, match="matrix"):
        leading(np.zeros(3), 1)
    with pytest.raises(ShapeError, match="cannot be multiplied"):
        project(np.eye(3), np.eye(4), np.eye(3))


@pytest.mark.parametrize("tol", [1e-3, 1e-9])
@pytest.mark.parametrize(
    ("shape", "rank", "k"), [((600, 520), 6, 6), ((600, 520), 6, 20), ((700, 640), 64, 64)]
)
def test_a_low_rank_matrix_ends_the_search(shape, rank, k, tol):
    """Rounding left over by float32 is no further direction, however small the tolerance."""
    rng = np.random.default_rng(3)
    U = np.linalg.qr(rng.standard_normal((shape[0], rank)))[0]
    V = np.linalg.qr(rng.standard_normal((shape[1], rank)))[0]
    W = ((U * np.geomspace(9, 0.1, rank)) @ V.T).astype(np.float32)
    found = leading(W, k, tol=tol)
    true = np.linalg.svd(W.astype(np.float64), compute_uv=False)[: len(found.S)]
    assert len(found.S) <= rank
    np.testing.assert_allclose(found.V.T @ found.V, np.eye(len(found.S)), atol=1e-6)
    assert pytest.approx(np.linalg.norm(true), rel=1e-5) == found.F
    assert found.passes < 12


def repeated(S, n=640, seed=0):
    """A matrix with these singular values and zeros, in random directions."""
    rng = np.random.default_rng(seed)
    S = np.concatenate([S, np.zeros(n - len(S))])
    return (oracles.haar(n, n, rng) * S @ oracles.haar(n, n, rng).T).astype(np.float32)


TAIL = np.arange(1, 641.0) ** -0.7
REPEATED = {
    "the identity": lambda: np.eye(1024, dtype=np.float32),
    "an orthogonal matrix": lambda: oracles.haar(640, 640, np.random.default_rng(0)).astype(np.float32),
    "one value, a deficient rank": lambda: repeated(np.ones(70)),
    "at the top": lambda: repeated(np.concatenate([np.full(50, 2.0), TAIL[:500]])),
    "in the middle": lambda: repeated(np.concatenate([[5, 4, 3], np.full(50, 1.0), 0.9 * TAIL[:500]])),
    "nearly alike": lambda: repeated(np.concatenate([1 - np.linspace(0, 1e-3, 50), 0.5 * TAIL[:500]])),
    "two values": lambda: repeated(np.concatenate([np.ones(300), np.full(340, 0.5)])),
    "along the axes": lambda: np.diag(np.concatenate([np.full(50, 2.0), TAIL[:590]])).astype(np.float32),
    "equal blocks": lambda: np.kron(np.eye(40), np.random.default_rng(0).standard_normal((16, 16))),
}


@cache
def _repeated_and_its_values(case):
    W = REPEATED[case]()
    return W, np.linalg.svd(W.astype(np.float64), compute_uv=False)


@pytest.mark.parametrize("k", [8, 16, 33, 64])
@pytest.mark.parametrize("case", REPEATED)
def test_all_copies_of_a_repeated_value_are_found(case, k):
    """A block of 16 or 32 vectors sees at most that many, so the search has to start again outside their span."""
    W, S = _repeated_and_its_values(case)
    found = leading(W, k)
    assert not found.exact
    assert found.S.shape == (k,)
    assert abs(found.F / np.linalg.norm(S[:k]) - 1) <= found.error <= 1e-3
    np.testing.assert_allclose(found.S, S[:k], rtol=2e-3)
    np.testing.assert_allclose(found.V.T @ found.V, np.eye(k), atol=1e-6)
    if case != "equal blocks" or k > 16:  # there the value after the last is not settled, as sigma_next says
        assert found.sigma_next == pytest.approx(S[k], rel=1e-2)


def test_copies_that_there_was_no_time_for_are_in_the_error():
    found = leading(REPEATED["the identity"](), 64, max_passes=2)
    assert len(found.S) < 64
    assert found.error * (1 + 1e-6) >= 8 / found.F - 1


def test_a_matrix_without_repeated_values_costs_no_pass_more():
    """Passes as they were before repeated values were looked for."""
    W = power_law((800, 800), 0.7)[0]
    flat = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    assert [leading(W, k).passes for k in (4, 16, 33, 64)] == [3, 5, 5, 7]
    assert leading(flat, 64).passes == 14
