"""Resampled sums and the interval of a measure."""

import math

import numpy as np
import pytest

from subspace.errors import ValueRangeError
from subspace.geometry.bootstrap import interval, resampled_sums


def test_every_draw_has_as_many_examples_as_there_are():
    sums = resampled_sums(np.stack([np.ones(7), np.arange(7)], axis=1), resamples=500, seed=1)
    assert sums.shape == (500, 2) and (sums[:, 0] == 7).all()
    assert sums[:, 1].mean() == pytest.approx(21, rel=0.03)
    # the variance of a sum of n draws is n times that of the values
    assert sums[:, 1].var() == pytest.approx(7 * np.arange(7).var(), rel=0.2)


def test_blocks_change_nothing(monkeypatch):
    from subspace.geometry import bootstrap

    columns = np.random.default_rng(0).standard_normal((5, 2))
    whole = resampled_sums(columns, resamples=20)
    monkeypatch.setattr(bootstrap, "_CELLS", 15)
    np.testing.assert_allclose(resampled_sums(columns, resamples=20), whole)


def test_the_interval_of_a_mean_is_students():
    from scipy.stats import t

    values = np.random.default_rng(2).standard_normal(12)
    samples = resampled_sums(values[:, None], resamples=200_000)[:, 0] / 12
    low, high = interval(samples, 12)
    half = t.ppf(0.975, 11) * values.std(ddof=1) / math.sqrt(12)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)


def test_what_has_no_interval():
    assert all(map(math.isnan, interval([1.0, 2.0], 1)))
    assert all(map(math.isnan, interval([math.nan], 5)))
    assert interval([math.nan, 1.0], 5) == (1.0, 1.0)
    with pytest.raises(ValueRangeError, match="Nothing to resample: 0 examples"):
        resampled_sums(np.empty((0, 2)))
