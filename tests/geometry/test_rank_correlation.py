"""Spearman's rank correlation against SciPy's, and its p-value against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.rank_correlation import partial_spearman, spearman


@pytest.mark.parametrize("n", [3, 5, 7, 12, 30])
def test_rho_is_that_of_scipy_with_ties(n):
    rng = np.random.default_rng(n)
    for _ in range(20):
        x, y = rng.integers(0, 4, n), rng.standard_normal(n)
        if len(set(x)) > 1:
            assert spearman(x, y, draws=9).rho == pytest.approx(stats.spearmanr(x, y).statistic)


def test_an_exact_p_is_that_of_all_permutations_in_scipy():
    x, y = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]

    def rho(order):
        return stats.spearmanr(order, y).statistic

    exact = stats.permutation_test((x,), rho, permutation_type="pairings", n_resamples=np.inf)
    assert spearman(x, y).p == pytest.approx(exact.pvalue)


def test_its_size_and_power_are_those_of_a_test():
    rng = np.random.default_rng(0)
    n, times = 15, 400
    p = [spearman(*rng.standard_normal((2, n)), draws=199).p for _ in range(times)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.085
    x = rng.standard_normal((times, n))
    strong = [spearman(each, 2 * each + rng.standard_normal(n), draws=199).p for each in x]
    assert np.mean(np.array(strong) <= 0.05) > 0.95


def test_what_a_third_quantity_explains_is_taken_out():
    rng = np.random.default_rng(1)
    z = rng.standard_normal(200)
    x, y = z + 0.3 * rng.standard_normal((2, 200))
    assert spearman(x, y).rho > 0.8
    assert abs(partial_spearman(x, y, z).rho) < 0.2
    # of ranks, the textbook's formula
    a, b, c = (spearman(*pair, draws=9).rho for pair in ((x, y), (x, z), (y, z)))
    assert partial_spearman(x, y, z).rho == pytest.approx((a - b * c) / np.sqrt((1 - b**2) * (1 - c**2)))


def test_a_quantity_that_never_changes_has_no_correlation():
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]).rho)
    assert np.isnan(partial_spearman([1, 2, 3], [1, 3, 2], [1, 2, 3]).rho)


def test_what_cannot_be_correlated_is_refused():
    with pytest.raises(ShapeError, match="Not two rows"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(ValueRangeError, match="Nothing to correlate: 2 runs"):
        spearman([1, 2], [1, 2])
    with pytest.raises(ValueRangeError, match="not finite"):
        spearman([1, 2, np.nan], [1, 2, 3])
