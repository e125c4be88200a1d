"""Spans along a path against dense projectors, and the size of the test that a direction is there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from subspace.geometry import chance
from subspace.geometry.trajectory import born, captured, isotropic, path_of, phi_along


def _span(rng, k, d):
    return np.linalg.qr(rng.standard_normal((d, k)))[0].T


def test_phi_along_a_path_is_that_of_projectors():
    rng = np.random.default_rng(0)
    sizes, others = [3, 1, 5, 2], [2, 4, 5, 1]
    spans, second = ([_span(rng, k, 12) for k in each] for each in (sizes, others))
    (path, counts), (other, other_counts) = path_of(spans, 12), path_of(second, 12)
    expected = [np.trace(U.T @ U @ V.T @ V) / min(len(U), len(V)) for U, V in zip(spans, second, strict=True)]
    assert phi_along(path, counts, other, other_counts) == pytest.approx(expected, abs=1e-12)
    last = [np.trace(U.T @ U @ second[2].T @ second[2]) / min(len(U), 5) for U in spans]
    assert phi_along(path, counts, other[2:3], other_counts[2:3]) == pytest.approx(last, abs=1e-12)


def test_where_there_is_no_span_there_is_no_phi():
    path, counts = path_of([None, np.eye(2, 5)], 5)
    found = phi_along(path, counts, path[-1:], counts[-1:])
    assert np.isnan(found[0]) and found[1] == 1
    levels = isotropic(counts, counts[-1:], 5)
    assert np.isnan(levels.mean[0]) and levels.mean[1] == 0.4
    assert levels.sd[1] == chance.phi_sd(2, 2, 5)


def test_isotropic_levels_are_the_mean_and_spread_of_random_paths():
    rng = np.random.default_rng(1)
    path, counts = path_of([_span(rng, 3, 20) for _ in range(2000)], 20)
    found = phi_along(path, counts, path[-1:], counts[-1:])[:-1]
    level = isotropic(counts[:1], counts[-1:], 20)
    assert found.mean() == pytest.approx(level.mean[0], abs=4 * level.sd[0] / np.sqrt(2000))
    assert found.std() == pytest.approx(level.sd[0], rel=0.1)


def test_a_planted_direction_is_born_where_it_was_put():
    rng = np.random.default_rng(2)
    d, steps = 200, 6
    basis = _span(rng, 4 + steps * 4, d)
    kept, noise = basis[:4], basis[4:]
    # direction j is there from step j + 1 on, in place of one that the end has not
    spans = [np.vstack([*kept[:t], *noise[4 * t : 4 * t + 4 - min(t, 4)]]) for t in range(steps)]
    path, counts = path_of(spans, d)
    found = born(captured(path, kept), counts, d, level=0.01)
    assert found.tolist() == [1, 2, 3, 4]


def test_what_is_lost_again_is_not_born_yet():
    e = np.eye(50)
    path, counts = path_of([e[:1], e[1:2], e[:1], e[:1]], 50)
    assert born(captured(path, e[:1]), counts, 50, level=0.01).tolist() == [2]


@pytest.mark.parametrize(("k", "d"), [(4, 30), (8, 64)])
def test_directions_of_unrelated_spans_are_dated_early_at_the_level(k, d):
    rng = np.random.default_rng(3)
    level, early, n = 0.05, 0, 0
    for _ in range(500):
        path, counts = path_of([_span(rng, k, d) for _ in range(3)], d)
        found = born(captured(path, path[-1]), counts, d, level=level)
        early, n = early + int((found < 2).sum()), n + k
    # the k directions of one draw are nearly independent
    low, high = binom.interval(0.9999, n, level)
    assert low <= early <= high


def test_the_level_is_the_quantile_of_beta():
    d, k = 40, 3
    limit = beta.ppf(0.99, k / 2, (d - k) / 2)
    for share, there in ((limit - 1e-9, 1), (limit + 1e-9, 0)):
        assert born(np.array([[share], [1.0]]), np.array([k, k]), d, level=0.01).tolist() == [there]
