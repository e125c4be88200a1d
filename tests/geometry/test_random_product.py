"""The largest singular value of random updates: size and power against products that are really formed."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.geometry.random_product import largest_of_matrix, largest_of_product, largest_with_factor


def _largest(M):
    return np.linalg.svd(M, compute_uv=False)[0]


def _most(n, p=0.05):
    """Least and most rejections of a test of this size, but for one of a thousand trials."""
    return np.quantile(np.random.default_rng(9).binomial(n, p, 100_000), [0.0005, 0.9995])


@pytest.mark.parametrize(("d_out", "r", "d_in"), [(40, 4, 60), (120, 16, 90), (12, 16, 30), (50, 40, 12)])
def test_random_factors_exceed_the_limit_in_five_percent_of_draws(d_out, r, d_in):
    rng = np.random.default_rng(1)
    edge, n, above = largest_of_product(d_out, r, d_in), 400, 0
    for _ in range(n):
        B, A = rng.standard_normal((d_out, r)), rng.standard_normal((r, d_in))
        above += _largest(B @ A) > edge * np.linalg.norm(B) * np.linalg.norm(A)
    low, high = _most(n)
    # the limit is itself of 199 draws: a rate of 5 % on average, 2 % to 9 % for one limit
    assert 0.3 * low <= above <= 1.8 * high


def test_over_many_limits_the_rate_is_five_percent(monkeypatch):
    """Of limits from other seeds: a Monte Carlo test is exact on average."""
    import subspace.geometry.random_product as module

    rng = np.random.default_rng(2)
    draws = []
    for _ in range(300):
        B, A = rng.standard_normal((30, 5)), rng.standard_normal((5, 25))
        draws.append(_largest(B @ A) / np.linalg.norm(B) / np.linalg.norm(A))
    true, rates = np.array(draws), []
    generator = np.random.default_rng
    for seed in range(1, 31):
        monkeypatch.setattr(module.np.random, "default_rng", lambda _, seed=seed: generator(seed))
        module._simulated.cache_clear()
        rates.append(np.mean(true > largest_of_product(30, 5, 25)))
    module._simulated.cache_clear()
    assert np.mean(rates) == pytest.approx(0.05, abs=0.02)


def test_factors_that_learned_a_direction_are_above():
    rng = np.random.default_rng(3)
    for _ in range(20):
        B, A = rng.standard_normal((80, 8)), rng.standard_normal((8, 60))
        B += 3 * np.outer(rng.standard_normal(80), rng.standard_normal(8))
        assert _largest(B @ A) > largest_of_product(80, 8, 60) * np.linalg.norm(B) * np.linalg.norm(A)


def test_with_a_factor_as_it_is_only_the_other_one_is_random():
    rng = np.random.default_rng(4)
    A = rng.standard_normal((6, 50)) + 4 * np.outer(rng.standard_normal(6), rng.standard_normal(50))
    edge, n, above, too_low = largest_with_factor(A, 70), 400, 0, 0
    for _ in range(n):
        B = rng.standard_normal((70, 6))
        largest = _largest(B @ A) / np.linalg.norm(B)
        above += largest > edge
        too_low += largest > largest_of_product(70, 6, 50) * np.linalg.norm(A)
    assert 1 <= above <= 60  # 5 % on average, of 39 draws
    assert too_low == n  # what A has of its own is no news of B


@pytest.mark.parametrize("shape", [(30, 50), (100, 20), (64, 64)])
def test_random_matrices_exceed_the_limit_in_five_percent_of_draws(shape):
    rng = np.random.default_rng(5)
    draws = (rng.standard_normal(shape) for _ in range(300))
    above = sum(_largest(M) / np.linalg.norm(M) > largest_of_matrix(*shape) for M in draws)
    low, high = _most(300)
    # a matrix of a known norm varies less than one of known variance, so that the limit is rather too high
    assert 0.3 * low <= above <= high


def test_the_limit_does_not_depend_on_the_order_of_the_sides_by_much():
    assert largest_of_product(100, 8, 40) == pytest.approx(largest_of_product(40, 8, 100), rel=0.05)
    assert largest_of_matrix(100, 40) == largest_of_matrix(40, 100)
