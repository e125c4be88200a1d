"""Chance levels, z-scores and the shared dimension against simulation; every seed is fixed."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import subspace


def _random(rng, lora, n, d, r):
    return lora({f"l.{k}.q": (np.eye(d, r), rng.standard_normal((r, d))) for k in range(n)})


@pytest.mark.parametrize(("i", "j", "d"), [(1, 1, 64), (4, 4, 64), (2, 16, 96)])
def test_phi_of_random_adapters_is_at_its_chance_level_with_z_of_unit_spread(i, j, d, rng, lora):
    n = 500
    rows = subspace.compare(_random(rng, lora, n, d, i), _random(rng, lora, n, d, j), controls="none").modules
    phi, z = np.array([row.phi_full for row in rows]), np.array([row.z_full for row in rows])
    assert rows[0].chance_full == pytest.approx(max(i, j) / d)
    assert phi.mean() == pytest.approx(max(i, j) / d, abs=4 * phi.std() / np.sqrt(n))
    assert z.mean() == pytest.approx(0, abs=4 / np.sqrt(n))
    # phi(1, 1) has heavy tails, and so has the estimate of its spread
    assert z.std() == pytest.approx(1, abs=0.2 if i == 1 else 0.1)
    np.testing.assert_allclose([row.times_chance for row in rows], phi / (max(i, j) / d))


def test_the_whole_grid_is_at_chance_on_average(rng, lora):
    rows = subspace.compare(
        _random(rng, lora, 300, 64, 6), _random(rng, lora, 300, 64, 9), controls="none"
    ).modules
    mean = np.mean([row.phi for row in rows], axis=0)
    np.testing.assert_allclose(mean, rows[0].chance_grid, rtol=0.35)
    np.testing.assert_allclose(mean[2:, 2:], rows[0].chance_grid[2:, 2:], rtol=0.06)


@pytest.mark.parametrize("shared", [0, 1, 2, 3])
@pytest.mark.parametrize("side", ["a", "b", "left", "right"])
def test_planted_directions_are_counted_exactly(shared, side, lora):
    rng = np.random.default_rng([shared, 7])
    d, n = 256, 12
    common = {k: (oracles.haar(d, 3, rng), oracles.haar(d, 3, rng)) for k in range(n)}

    def adapter(r):
        factors = {}
        for k, (U, V) in common.items():
            B, A = rng.standard_normal((d, r)) / 16, rng.standard_normal((r, d)) / 16
            B[:, :shared], A[:shared] = U[:, :shared], V[:, :shared].T
            factors[f"l.{k}.q"] = B, A
        return lora(factors)

    result = subspace.compare(adapter(8), adapter(32), side=side)
    assert [row.shared_dim for row in result.modules] == [shared] * n
    directions = (
        f"{shared} direction{'s' * (shared > 1)} in all {n} modules"
        if shared
        else "no direction in any module"
    )
    assert f"{directions} shared beyond isotropic random spans" in result.headline()


def test_a_direction_that_is_nearly_shared_counts(lora):
    rng = np.random.default_rng(11)
    d = 512
    v, w = oracles.haar(d, 2, rng).T
    one = np.vstack([v, rng.standard_normal((7, d)) / 100])
    other = np.vstack([0.8 * v + 0.6 * w, rng.standard_normal((7, d)) / 100])
    (row,) = subspace.compare(lora(q=(np.eye(d, 8), one)), lora(q=(np.eye(d, 8), other))).modules
    assert row.shared_dim == 1
    assert row.shared_p[0] < 1e-4 < row.shared_p[1]


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_random_adapters_share_nothing_more_often_than_the_level_says(level, lora):
    """Family-wise: 60 comparisons of 20 modules each, of which at most the level's share may claim a direction."""
    rng = np.random.default_rng(4)
    families, false = 60, 0
    for _ in range(families):
        one, other = _random(rng, lora, 20, 96, 8), _random(rng, lora, 20, 96, 4)
        rows = subspace.compare(one, other, level=level, controls="none").modules
        false += any(row.shared_dim for row in rows)
    assert false <= families * level + 3 * np.sqrt(families * level * (1 - level))


def test_single_tests_have_their_nominal_size(rng, lora):
    n = 1500
    rows = subspace.compare(
        _random(rng, lora, n, 128, 8), _random(rng, lora, n, 128, 8), controls="none"
    ).modules
    p = np.array([row.shared_p[0] for row in rows])
    assert 0.02 < np.mean(p <= 0.05) < 0.065  # slightly conservative by design
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.06)


def test_holm_is_over_the_modules_of_a_side(rng, lora):
    rows = subspace.compare(_random(rng, lora, 30, 64, 4), _random(rng, lora, 30, 64, 4), side="all").modules
    for side in ("a", "right"):
        mine = [row for row in rows if row.side == side]
        p = np.array([row.shared_p[0] for row in mine])
        order, adjusted = np.argsort(p), np.empty(len(p))
        adjusted[order] = np.maximum.accumulate(np.minimum(1, np.sort(p) * np.arange(len(p), 0, -1)))
        np.testing.assert_allclose([row.shared_p_holm[0] for row in mine], adjusted, rtol=1e-12)


def test_a_level_must_be_a_probability(rng, lora):
    one = _random(rng, lora, 1, 16, 2)
    with pytest.raises(subspace.SubspaceError, match=r"Level 1.5 is not between 0 and 1"):
        subspace.compare(one, one, level=1.5)
