"""Chance: closed forms against sampling, the sampler against real Haar frames."""

import math

import numpy as np
import oracles
import pytest

from subspace.errors import ValueRangeError
from subspace.geometry import phi_mean, phi_quantile, phi_sd, phi_z, projection_mean_sd, sample_cos2

DIMENSIONS = [(1, 1, 64), (1, 8, 256), (8, 8, 768), (8, 64, 768), (5, 6, 8), (3, 3, 4), (4, 2, 6), (7, 1, 7)]


def haar_cos2(i, j, d, n, rng):
    return np.array(
        [
            np.linalg.svd(oracles.haar(d, i, rng).T @ oracles.haar(d, j, rng), compute_uv=False) ** 2
            for _ in range(n)
        ]
    )


@pytest.mark.parametrize(("i", "j", "d"), DIMENSIONS)
def test_mean_and_sd_are_those_of_samples(i, j, d):
    n = 20_000
    phi = sample_cos2(i, j, d, n=n, rng=np.random.default_rng(1)).mean(axis=1)
    assert phi.mean() == pytest.approx(phi_mean(i, j, d), abs=5 * phi_sd(i, j, d) / math.sqrt(n) + 1e-12)
    assert phi.std() == pytest.approx(phi_sd(i, j, d), rel=0.05, abs=1e-12)


@pytest.mark.parametrize(("i", "j", "d"), [(2, 2, 5), (3, 5, 12), (5, 6, 8), (1, 3, 9), (6, 3, 9)])
def test_the_sampler_agrees_with_haar_frames(i, j, d):
    n = 4000
    drawn = sample_cos2(i, j, d, n=n, rng=np.random.default_rng(0))
    real = haar_cos2(i, j, d, n, np.random.default_rng(1))
    assert drawn.shape == real.shape
    assert (np.diff(drawn, axis=1) <= 0).all()
    assert ((drawn >= 0) & (drawn <= 1)).all()
    grid = np.linspace(0.001, 0.999, 200)
    for k in range(min(i, j)):
        first, second = (np.searchsorted(np.sort(c[:, k] - 1e-12), grid) / n for c in (drawn, real))
        # two-sample Kolmogorov-Smirnov at 1e-4
        assert np.abs(first - second).max() < 2.23 * math.sqrt(2 / n), k


@pytest.mark.parametrize("d", [96, 768])
@pytest.mark.parametrize(("i", "j"), [(1, 1), (8, 8), (8, 64), (64, 64)])
def test_random_spans_score_max_over_d(i, j, d):
    rng = np.random.default_rng(0)
    phi = [
        np.linalg.norm(oracles.haar(d, i, rng).T @ oracles.haar(d, j, rng)) ** 2 / min(i, j)
        for _ in range(30)
    ]
    assert np.mean(phi) == pytest.approx(phi_mean(i, j, d), abs=5 * phi_sd(i, j, d) / math.sqrt(30))


@pytest.mark.parametrize(("i", "j", "d"), [(8, 8, 768), (8, 64, 768), (2, 5, 64), (3, 3, 4), (10, 12, 16)])
def test_quantiles_are_those_of_samples(i, j, d):
    phi = sample_cos2(i, j, d, n=20_000, rng=np.random.default_rng(2)).mean(axis=1)
    q = np.array([0.05, 0.5, 0.95, 0.99])
    np.testing.assert_allclose(np.mean(phi[:, None] <= phi_quantile(q, i, j, d), axis=0), q, atol=0.008)


@pytest.mark.parametrize(("j", "d"), [(1, 2), (1, 4096), (8, 768), (5, 6)])
def test_one_direction_is_exactly_beta(j, d):
    q = np.array([0.01, 0.5, 0.99])
    np.testing.assert_allclose(
        phi_quantile(q, 1, j, d), oracles.beta_quantile(q, j / 2, (d - j) / 2), rtol=1e-12
    )
    np.testing.assert_allclose(phi_quantile(q, j, 1, d), phi_quantile(q, 1, j, d))


def test_a_span_that_is_the_whole_space():
    assert phi_mean(3, 8, 8) == 1
    assert phi_sd(3, 8, 8) == 0
    assert math.isnan(phi_z(1.0, 3, 8, 8))
    assert phi_quantile(0.5, 3, 8, 8) == 1
    assert phi_sd(1, 1, 1) == 0
    assert (sample_cos2(3, 8, 8, n=2, rng=np.random.default_rng(0)) == 1).all()


def test_forced_directions_are_at_one():
    cos2 = sample_cos2(5, 6, 8, n=100, rng=np.random.default_rng(0))
    assert (cos2[:, :3] == 1).all()
    assert (cos2[:, 3:] < 1).all()
    assert phi_quantile(0.0, 5, 6, 8) == pytest.approx(3 / 5)


def test_z_counts_standard_deviations():
    mean, sd = phi_mean(8, 64, 768), phi_sd(8, 64, 768)
    assert phi_z(mean + 3 * sd, 8, 64, 768) == pytest.approx(3)


def test_samples_are_those_of_the_seed_in_any_batch():
    first, again = (sample_cos2(3, 4, 20, n=7, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert sample_cos2(3, 4, 20, n=0, rng=np.random.default_rng(5)).shape == (0, 3)


@pytest.mark.parametrize(
    "call", [phi_mean, phi_sd, lambda *a: phi_z(0.1, *a), lambda *a: phi_quantile(0.5, *a)]
)
@pytest.mark.parametrize("dimensions", [(0, 1, 4), (1, 5, 4), (-1, 1, 4)])
def test_dimensions_out_of_range(call, dimensions):
    with pytest.raises(ValueRangeError, match=r"1\.\.d"):
        call(*dimensions)


def test_probabilities_out_of_range():
    with pytest.raises(ValueRangeError, match="Probability"):
        phi_quantile([0.5, 1.5], 1, 1, 4)


@pytest.mark.parametrize(
    ("r", "shape", "power"),
    [
        (1, (12, 9), 0.5),
        (3, (12, 9), 0.5),
        (3, (12, 9), 2.0),
        (4, (6, 20), 0.0),
        (5, (5, 7), 1.0),
        (1, (40, 1), 0.0),
    ],
)
def test_random_projections_of_a_matrix(r, shape, power):
    rng = np.random.default_rng(0)
    p, n = min(shape), 20_000
    S = np.arange(1, p + 1.0) ** -power
    W = oracles.haar(shape[0], p, rng) * S @ oracles.haar(shape[1], p, rng).T
    values = np.array(
        [
            np.linalg.norm(oracles.haar(shape[0], r, rng).T @ W @ oracles.haar(shape[1], r, rng))
            for _ in range(n)
        ]
    )
    rms, sd = projection_mean_sd(r, np.linalg.norm(S), np.sum(S**4), *shape)
    assert np.sqrt(np.mean(values**2)) == pytest.approx(rms, rel=0.02)
    # the square's variance is exact; that of its root is modelled
    assert values.std() == pytest.approx(sd, rel=0.08)


def test_the_square_of_a_projection_has_the_exact_variance():
    rng = np.random.default_rng(3)
    W = np.diag([3.0, 1.0, 1.0, 0.5])
    squares = [
        np.linalg.norm(oracles.haar(4, 2, rng).T @ W @ oracles.haar(4, 2, rng)) ** 2 for _ in range(20_000)
    ]
    rms, sd = projection_mean_sd(2, np.linalg.norm(W), np.sum(np.diag(W) ** 4), 4, 4)
    assert np.mean(squares) == pytest.approx(rms**2, rel=0.02)
    assert np.std(np.sqrt(squares)) == pytest.approx(sd, rel=0.06)


def test_random_column_of_the_papers_table_7():
    # ||W_q||_F = 61.95, d = 12288; a flat spectrum for the fourth moment, which the mean does not need
    rms = {r: projection_mean_sd(r, 61.95, 61.95**4 / 12288, 12288, 12288)[0] for r in (4, 64)}
    assert rms[4] == pytest.approx(0.0202, abs=5e-5)
    assert rms[64] == pytest.approx(0.3227, abs=5e-5)
    assert round(rms[4], 2) == 0.02
    assert rms[64] == pytest.approx(0.33, abs=0.01)


def test_factors_of_the_papers_table_7_within_rounding():
    for update, projection, published in ((6.91, 0.32, 21.5), (3.57, 1.90, 1.88)):
        lowest = (update - 0.005) / (projection + 0.005)
        highest = (update + 0.005) / (projection - 0.005)
        assert lowest <= published <= highest


def test_large_shapes_fall_to_the_delta_method():
    rms, sd = projection_mean_sd(512, 10.0, 1.0, 4096, 4096)
    assert 0 < sd < 0.01 * rms


@pytest.mark.parametrize("r", [0, 5])
def test_more_columns_than_dimensions(r):
    with pytest.raises(ValueRangeError, match="r outside"):
        projection_mean_sd(r, 1.0, 1.0, 4, 9)
