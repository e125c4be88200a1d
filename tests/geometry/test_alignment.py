"""Shares, rotation, spectral shift and the principal mask: dense definitions, bounds, and chance by simulation."""

from __future__ import annotations

import numpy as np
import oracles
import oracles_of_alignment as dense
import pytest
import torch

from subspace.geometry import alignment, singular_basis, topk
from subspace.geometry.change import Changed, DenseChange, LowRankChange
from subspace.geometry.principal_mask import as_bfloat16, changed_in_bfloat16, mask_overlap
from subspace.geometry.rotation import angles, average, random_rotation, wedin_bound
from subspace.geometry.singular_basis import both_leading, changed_exact_basis, exact_basis, leading_basis
from subspace.geometry.spectral_shift import inner, shift_bounds

M, N, R = 48, 36, 3


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def krylov(monkeypatch):
    """Matrices of these tests count as large."""
    monkeypatch.setattr(singular_basis, "_SMALL_SIDE", 8)
    monkeypatch.setattr(topk, "_DENSE", 24)


def _low_rank(rng, m=M, n=N, r=R, S=None):
    S = np.arange(r, 0, -1.0) if S is None else np.asarray(S)
    return LowRankChange(oracles.haar(m, len(S), rng), S, oracles.haar(n, len(S), rng).T)


def _as_dense(change):
    return change.rows(0, change.shape[0])


# --- a change


@pytest.mark.parametrize("turned", [False, True])
def test_a_change_is_the_same_by_its_factors_and_as_a_matrix(turned, rng):
    factors = _low_rank(rng).times(-0.5)
    matrix = DenseChange(_as_dense(factors))
    if turned:
        factors, matrix = factors.T, matrix.T
    D = _as_dense(factors)
    U, V = rng.standard_normal((len(D), 4)), rng.standard_normal((D.shape[1], 4))
    for change in (factors, matrix, DenseChange((4 * D).astype(np.float32), 0.25)):
        assert change.shape == D.shape
        assert change.norm == pytest.approx(np.linalg.norm(D), rel=1e-6)
        assert change.concentration == pytest.approx(98 / 14**2, rel=1e-6)
        np.testing.assert_allclose(change.of_right(V), D @ V, atol=1e-5)
        np.testing.assert_allclose(change.of_left(U), U.T @ D, atol=1e-5)
        np.testing.assert_allclose(change.rows(3, 7), D[3:7], atol=1e-6)
        np.testing.assert_allclose(_as_dense(change.T), D.T, atol=1e-6)


def test_a_changed_matrix_is_the_sum_in_chunks(rng):
    W, change = rng.standard_normal((M, N)).astype(np.float32), _low_rank(rng)
    total = W.astype(np.float64) + _as_dense(change)
    changed = Changed(W, change)
    np.testing.assert_array_equal(changed.rows(0, M), total)
    out = np.empty((10, N), dtype=np.float32)
    np.testing.assert_allclose(changed.rows(5, 12, out=out), total[5:12], rtol=1e-6)
    assert inner(W, change) == pytest.approx(np.vdot(W, _as_dense(change)), abs=1e-4)
    assert inner(W, DenseChange(_as_dense(change))) == pytest.approx(np.vdot(W, _as_dense(change)))


def test_a_turned_change_has_the_same_singular_values_in_other_frames(rng):
    change = _low_rank(rng)
    other = change.turned(rng)
    np.testing.assert_allclose(np.linalg.svd(_as_dense(other))[1][:R], change.S)
    assert np.abs(other.U.T @ change.U).max() < 0.9


# --- shares


@pytest.mark.parametrize("kind", dense.spectra(8))
@pytest.mark.parametrize("full", [False, True])
def test_shares_are_those_of_the_definition(kind, full, rng):
    W, change = dense.weight(M, N, dense.spectra(N)[kind], rng), _low_rank(rng)
    base = exact_basis(W)
    found = alignment.align(DenseChange(_as_dense(change)) if full else change, base.U, base.V)
    for k in (4, 12, len(base.S)):
        expected = dense.alignment(W, _as_dense(change), k)
        assert found.right[k] == pytest.approx(expected["input_share"], abs=1e-12)
        assert found.left[k] == pytest.approx(expected["output_share"], abs=1e-12)
        assert found.block[k] == pytest.approx(expected["subspace_share"], abs=1e-12)
    assert found.diagonal[-1] == pytest.approx(expected["reweighting"], abs=1e-12)


@pytest.mark.parametrize("S", [[1.0], [2.0, 1.0, 1.0], np.ones(12), np.arange(1.0, 25.0)])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_mean_and_sd_of_a_share_are_those_of_random_updates(S, k, rng):
    """Exact for any spectrum: 2000 draws are within 4 standard errors."""
    d, draws = 24, 2000
    S = np.asarray(S) / np.linalg.norm(S)
    found = np.array([np.sum((S * oracles.haar(d, len(S), rng)[:k]) ** 2) for _ in range(draws)])
    sd = alignment.share_sd(k, d, float(np.sum(S**4)))
    assert found.mean() == pytest.approx(alignment.share_mean(k, d), abs=4 * sd / np.sqrt(draws) + 1e-12)
    assert found.std() == pytest.approx(sd, rel=0.1)


@pytest.mark.parametrize("shape", [(6, 6), (9, 5), (4, 11)])
def test_the_means_of_the_diagonal_and_of_the_block_are_those_of_random_frames(shape, rng):
    D = rng.standard_normal(shape) * [[3.0], *[[1.0]] * (shape[0] - 1)]
    p, draws = min(shape), 2000
    found = np.empty((draws, 2 * p))
    for n in range(draws):
        core = oracles.haar(shape[0], p, rng).T @ D @ oracles.haar(shape[1], p, rng) / np.linalg.norm(D)
        nested = np.cumsum(np.cumsum(core**2, axis=0), axis=1).diagonal()
        found[n] = *np.cumsum(core.diagonal() ** 2), *nested
    expected = [alignment.diagonal_mean(k, *shape) for k in range(1, p + 1)]
    expected += [alignment.block_mean(k, *shape) for k in range(1, p + 1)]
    error = found.std(axis=0) / np.sqrt(draws)
    assert np.all(np.abs(found.mean(axis=0) - expected) <= 4.5 * error + 1e-12)
    assert expected[p - 1] == pytest.approx(1 / max(shape))


# --- rotation


@pytest.mark.parametrize("theta", [0.0, 1e-9, 1e-3, 1.0, np.pi / 2])
def test_angles_are_those_planted(theta, rng):
    U, V = oracles.planted([theta / 2, theta], 12, rng)
    np.testing.assert_allclose(angles(U, V), np.degrees([theta / 2, theta]), rtol=1e-5, atol=2e-14 * 57)
    assert average(angles(U, V)) == pytest.approx(dense.rotation(U, V), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("kind", ["power law", "bulk and spikes"])
@pytest.mark.parametrize("size", [0.02, 0.2])
def test_random_updates_turn_the_leading_span_as_far_as_the_formula_says(kind, size, rng):
    """To first order, for a random update whose norm and largest value are small next to the k-th value of W."""
    k = 4
    W = dense.weight(M, N, dense.spectra(N)[kind], rng)
    base = exact_basis(W)
    change = _low_rank(rng, S=size * base.S[k - 1] * np.array([1.0, 0.7, 0.7]))
    squares = []
    for _ in range(150):
        changed = changed_exact_basis(W, change.turned(rng))
        pairs = (base.U[:, :k], changed.U[:, :k]), (base.V[:, :k], changed.V[:, :k])
        squares.append([np.sin(np.radians(average(angles(*pair)))) ** 2 for pair in pairs])
    found = np.degrees(np.arcsin(np.sqrt(np.mean(squares, axis=0))))
    np.testing.assert_allclose(found, random_rotation(base, k, change.norm), rtol=0.1)


def test_the_level_of_a_tie_is_that_of_random_spans():
    base = exact_basis(np.eye(6))
    assert random_rotation(base, 2, 1e-3)[0] == pytest.approx(np.degrees(np.arcsin(np.sqrt(1 - 2 / 6))))
    assert random_rotation(base, 6, 1.0) == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["power law", "bulk and spikes"])
def test_values_that_were_not_computed_hardly_matter_for_the_level(kind, krylov, rng):
    W = dense.weight(120, 90, dense.spectra(90)[kind], rng)
    exact, partly = exact_basis(W), leading_basis(W, 4)
    assert not partly.exact and len(partly.S) == 4
    for k in (2, 4):
        expected = random_rotation(exact, k, 0.01)
        np.testing.assert_allclose(random_rotation(partly, k, 0.01), expected, rtol=0.1)
    squares, times = partly.squares_after(4)
    assert times.sum() == pytest.approx(86)
    assert squares @ times == pytest.approx(np.sum(exact.S[4:] ** 2) / exact.S[0] ** 2, rel=1e-3)


@pytest.mark.parametrize("size", [0.1, 0.5, 1.5])
def test_the_largest_angle_is_never_above_wedins_bound(size, rng):
    k, tight = 3, 0.0
    for _ in range(40):
        W = dense.weight(20, 16, dense.spectra(16)["bulk and spikes"], rng)
        change = _low_rank(rng, 20, 16, S=[size, size])
        base, changed = exact_basis(W), changed_exact_basis(W, change)
        bound = wedin_bound(change.largest, changed.S[k - 1] - base.S[k])
        largest = max(
            angles(base.U[:, :k], changed.U[:, :k])[-1], angles(base.V[:, :k], changed.V[:, :k])[-1]
        )
        assert largest <= bound
        tight = max(tight, largest / bound)
    assert tight > 0.1  # a bound that has something to bound


# --- spectral shift


@pytest.mark.parametrize("kind", dense.spectra(8))
@pytest.mark.parametrize("size", [1e-4, 0.1, 3.0])
def test_the_shift_of_leading_values_bounds_that_of_all(kind, size, krylov, rng):
    W = dense.weight(120, 90, dense.spectra(90)[kind], rng)
    change = _low_rank(rng, 120, 90).times(size)
    expected = dense.alignment(W, _as_dense(change), 4)["spectral_shift"]
    exact = shift_bounds(exact_basis(W), changed_exact_basis(W, change), change, W)
    assert exact == pytest.approx((expected, expected), rel=1e-9)
    low, high = shift_bounds(*both_leading(W, leading_basis(W, 4), change), change, W)
    assert low <= expected * (1 + 1e-3) and expected <= high * (1 + 1e-9)
    assert (
        low > 0.05 * expected or kind == "rank-deficient"
    )  # there the values that open up are not among the leading
    assert high == pytest.approx(change.norm / np.linalg.norm(W))


def test_a_larger_w_is_a_shift_of_one_kind_in_either_bound(krylov, rng):
    """W + c W: both bounds meet at c, as all values grow by the same share."""
    W = dense.weight(60, 40, dense.spectra(40)["power law"], rng)
    change = DenseChange(W, 0.01)
    low, high = shift_bounds(*both_leading(W, leading_basis(W, 4), change), change, W)
    assert low == pytest.approx(0.01, rel=1e-4) and high == pytest.approx(0.01, rel=1e-4)


# --- both matrices in one small space


@pytest.mark.parametrize("kind", ["power law", "bulk and spikes"])
@pytest.mark.parametrize("size", [1e-5, 1e-2, 1.0])
@pytest.mark.parametrize("full", [False, True])
def test_a_large_matrix_turns_as_its_dense_decomposition_says(kind, size, full, krylov, rng):
    k = 4
    W = dense.weight(120, 90, dense.spectra(90)[kind], rng)
    change = _low_rank(rng, 120, 90).times(size)
    expected = dense.alignment(W, _as_dense(change), k)
    change = DenseChange(_as_dense(change)) if full else change
    base, changed = both_leading(W, leading_basis(W, k), change)
    assert not changed.exact
    found = average(angles(base.V, changed.V)), average(angles(base.U, changed.U))
    assert found == pytest.approx((expected["input_rotation"], expected["output_rotation"]), rel=2e-2)
    true = np.linalg.svd(W + _as_dense(change), compute_uv=False)[:k] - np.linalg.svd(W, compute_uv=False)[:k]
    np.testing.assert_allclose(changed.S - base.S, true, rtol=2e-3, atol=1e-3 * size)


# --- the principal mask


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1e-3, 1e-1])
def test_the_overlap_with_the_mask_is_that_of_sorting(stored, size, rng):
    W = dense.weight(M, N, dense.spectra(N)["power law"], rng).astype(np.float32)
    W = as_bfloat16(W) if stored == "bfloat16" else W
    change = _low_rank(rng).times(size)
    found = mask_overlap(W, exact_basis(W), 4, change, share=0.25)
    expected = dense.alignment(W.astype(np.float64), _as_dense(change), 4, share=0.25)
    assert 0 < found.changed < 1
    assert found.overlap == pytest.approx(expected["mask_overlap"], abs=1e-12)
    assert found.changed == expected["changed_in_bf16"]


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_the_gaussian_level_is_that_of_gaussian_updates(stored, rng):
    """Rounding alone favours small entries, which lie outside the mask."""
    W = dense.weight(M, N, dense.spectra(N)["power law"], rng).astype(np.float32)
    W = as_bfloat16(W) if stored == "bfloat16" else W
    base, draws = exact_basis(W), []
    for _ in range(60):
        change = DenseChange(1e-3 * rng.standard_normal((M, N)))
        draws.append(mask_overlap(W, base, 4, change, share=0.2))
    overlaps = np.array([each.overlap for each in draws])
    error = overlaps.std() / np.sqrt(len(draws))
    assert draws[0].gaussian == pytest.approx(overlaps.mean(), abs=4 * error)
    assert overlaps.mean() < 0.2 - 10 * error


def test_ties_at_the_threshold_count_in_part():
    """All entries of the leading part are equal: whatever changes, the mask has its share of it."""
    W = np.ones((8, 8))
    D = np.zeros((8, 8))
    D[0, :3] = 1.0
    assert mask_overlap(W, exact_basis(W), 1, DenseChange(D), share=0.3).overlap == pytest.approx(0.3)


def test_nothing_changes_below_the_grid_of_bfloat16(rng):
    W = as_bfloat16(1 + rng.random((M, N)))
    found = mask_overlap(W, exact_basis(W), 1, DenseChange(np.full((M, N), 1e-4)), share=0.1)
    assert np.isnan(found.overlap) and found.changed == 0


@pytest.mark.filterwarnings("ignore:overflow")
def test_rounding_to_bfloat16_is_that_of_torch(rng):
    M = np.concatenate(
        [rng.standard_normal(4000) * 10.0 ** rng.integers(-42, 38, 4000), [0.0, -0.0, 1e39, -3.4e38]]
    )
    M32 = torch.tensor(M).to(torch.float32)
    np.testing.assert_array_equal(as_bfloat16(M), M32.to(torch.bfloat16).to(torch.float32).numpy())
    ties = (1 + np.arange(64) * 2.0**-8).astype(np.float32)
    np.testing.assert_array_equal(as_bfloat16(ties), torch.tensor(ties).to(torch.bfloat16).float().numpy())
    W, D = rng.standard_normal((50, 40)), 0.003 * rng.standard_normal((50, 40))
    np.testing.assert_array_equal(changed_in_bfloat16(W, D), dense.changed_in_bfloat16(W, D))
