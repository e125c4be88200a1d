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


@pytest.mark.parametrize(
    ("i", "j", "d"),
    [
        (2, 2, 4), (2, 2, 5), (2, 4, 6), (2, 2, 64), (2, 2, 4096), (3, 3, 6), (3, 3, 12), (3, 60, 64), (4, 4, 8),
        (4, 4, 64), (8, 8, 16), (6, 7, 9), (10, 12, 16), (9, 9, 64), (3, 3, 300),
    ],
)  # fmt: skip
def test_quantiles_in_small_spaces(i, j, d):
    """By the exact law, or by a Beta where that is near it: the tails of samples have their probability."""
    n, q = 40_000, np.array([1e-3, 0.01, 0.05, 0.5, 0.95, 0.99, 0.999])
    phi = sample_cos2(i, j, d, n=n, rng=np.random.default_rng(2)).mean(axis=1)
    below = np.mean(phi[:, None] <= phi_quantile(q, i, j, d), axis=0)
    beta = i == 9 or d == 300
    np.testing.assert_array_less(np.abs(below - q), 4.5 * np.sqrt(q * (1 - q) / n) + 0.002 * beta)


def test_two_directions_in_four_dimensions():
    """phi = (1 + x y) / 2 with x, y uniform in [-1, 1]."""
    phi = np.array([0.6, 0.9, 0.999])
    z = 2 * phi - 1
    law = 0.5 + z / 2 - z * np.log(z) / 2
    np.testing.assert_allclose(phi_quantile(law, 2, 2, 4), phi, rtol=1e-9)
    np.testing.assert_allclose(phi_quantile(1 - law, 2, 2, 4), 1 - phi, rtol=1e-9)
    assert phi_quantile([0.0, 1.0], 2, 2, 4) == pytest.approx([0, 1], abs=1e-12)


@pytest.mark.parametrize(("i", "j", "d"), [(2, 3, 7), (3, 3, 6), (3, 4, 40), (7, 9, 30), (8, 60, 200)])
def test_quantiles_rise_from_end_to_end_and_mirror(i, j, d):
    q = np.concatenate([[0], np.geomspace(1e-9, 0.5, 30)])
    q = np.concatenate([q, 1 - q[::-1]])
    phi = phi_quantile(q, i, j, d)
    assert (np.diff(phi) >= 0).all() and phi[0] == pytest.approx(0, abs=1e-12) and phi[-1] == 1
    # the complement of the larger span has cosines where this one has sines
    np.testing.assert_allclose(
        phi, 1 - phi_quantile(1 - q, i, d - j, d)[::1], atol=2e-3
    ) if i <= d - j else None
    middle = np.array([0.01, 0.2, 0.5, 0.8])
    np.testing.assert_allclose(
        phi_quantile(middle, i, j, d), 1 - phi_quantile(1 - middle, i, d - j, d), rtol=1e-4
    )


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


_SPECTRA = {
    "rank one": lambda p: np.eye(1, p)[0],
    "flat": np.ones,
    "root": lambda p: np.arange(1, p + 1.0) ** -0.5,
    "inverse": lambda p: np.arange(1, p + 1.0) ** -1,
    "square": lambda p: np.arange(1, p + 1.0) ** -2,
    "one stands out": lambda p: np.concatenate([[math.sqrt(p)], np.ones(p - 1)]),
}


def projections(r, S, d_out, d_in, n, rng):
    """Draws of ||U.T @ W @ V||_F for W with singular values S."""
    found, batch = [], max(1, 200_000 // (max(d_out, d_in) * r))
    while len(found) * batch < n:
        U, V = (np.linalg.qr(rng.standard_normal((batch, d, r)))[0][:, : len(S)] for d in (d_out, d_in))
        found.append(np.linalg.norm(np.swapaxes(U * S[:, None], 1, 2) @ V, axis=(1, 2)))
    return np.concatenate(found)


@pytest.mark.parametrize("spectrum", _SPECTRA)
@pytest.mark.parametrize(
    ("r", "shape"), [(1, (6, 6)), (1, (12, 9)), (3, (12, 9)), (2, (40, 60)), (4, (64, 40)), (8, (9, 12))]
)
def test_random_projections_of_a_matrix(r, shape, spectrum):
    S = _SPECTRA[spectrum](min(shape))
    values = projections(r, S, *shape, 20_000, np.random.default_rng(0))
    moments = np.linalg.norm(S), np.sum(S**4)
    rms, sd = projection_mean_sd(r, *moments, *shape, leading=S[:r])
    assert np.sqrt(np.mean(values**2)) == pytest.approx(rms, rel=0.02)
    noise = 3 * math.sqrt((np.mean((values - values.mean()) ** 4) / values.std() ** 4 - 1) / 4 / len(values))
    assert values.std() == pytest.approx(sd, rel=noise + (1e-12 if spectrum == "rank one" else 0.03))
    _, unaware = projection_mean_sd(r, *moments, *shape)
    assert -0.03 - noise < unaware / values.std() - 1 < 0.09 + noise


def test_a_matrix_of_one_row_or_rank_has_the_exact_spread():
    # |u_1| of a random unit vector in R^3 is uniform in [0, 1]
    rms, sd = projection_mean_sd(1, 1.0, 1.0, 3, 1)
    assert (rms**2, sd**2) == pytest.approx((1 / 3, 1 / 12))
    rms, sd = projection_mean_sd(1, 2.0, 16.0, 3, 3, leading=[2.0])
    assert (rms**2, sd**2) == pytest.approx((4 / 9, 4 * (1 / 9 - 1 / 16)))


def test_a_fourth_moment_that_no_matrix_has_is_brought_into_range():
    within = projection_mean_sd(2, 3.0, 81 / 5, 6, 5)
    assert projection_mean_sd(2, 3.0, 1.0, 6, 5) == pytest.approx(within)
    assert projection_mean_sd(2, 3.0, 81.0, 6, 5) == projection_mean_sd(2, 3.0, 90.0, 6, 5)
    assert projection_mean_sd(2, 0.0, 0.0, 6, 5) == (0, 0)
    assert math.isnan(projection_mean_sd(2, 1e100, math.inf, 6, 5)[1])


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
