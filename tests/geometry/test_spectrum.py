"""Ranks of a spectrum: answers by hand, bounds that hold for all of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import effective_rank, energy_rank, numerical_rank, participation_ratio, stable_rank

SIZES = [stable_rank, effective_rank, participation_ratio]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_equal_values_count_in_full(size, scale):
    assert size(np.full(5, scale)) == pytest.approx(5)
    assert size([scale, 0.0, 0.0]) == pytest.approx(1)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12))
def test_sizes_lie_between_one_and_the_rank(values):
    S = np.sort(values)[::-1]
    for size in SIZES:
        assert 1 - 1e-9 <= size(S) <= len(S) + 1e-9
    assert stable_rank(S) == pytest.approx(np.sum(S**2) / S[0] ** 2)
    assert participation_ratio(S) == pytest.approx(np.sum(S**2) ** 2 / np.sum(S**4))
    share = S / S.sum()
    assert effective_rank(S) == pytest.approx(math.exp(-np.sum(share * np.log(share))))


@pytest.mark.parametrize("S", [[], [0.0], [0.0, 0.0]])
def test_nothing_has_no_size(S):
    assert numerical_rank(S) == 0
    assert all(math.isnan(size(S)) for size in SIZES)
    assert math.isnan(energy_rank(S, 0.9))


@pytest.mark.parametrize(("q", "k"), [(0.1, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_energy_rank_of_equal_values(q, k):
    assert energy_rank([3.0] * 4, q) == k


def test_energy_rank_forgives_rounding():
    assert energy_rank([0.1] * 10, 0.3) == 3


def test_numerical_rank_follows_the_longer_dimension():
    S = [1.0, 1e-13]
    assert numerical_rank(S) == 2
    assert numerical_rank(S, longest=4096) == 1


@pytest.mark.parametrize("S", [[1.0, 2.0], [1.0, -1.0], [np.inf], [np.nan]])
def test_what_is_no_spectrum_is_refused(S):
    for size in (numerical_rank, *SIZES, lambda S: energy_rank(S, 0.5)):
        with pytest.raises(ValueRangeError, match="descending"):
            size(S)


def test_shapes_and_shares_out_of_range():
    with pytest.raises(ShapeError, match="one-dimensional"):
        stable_rank(np.eye(2))
    for q in (0.0, 1.1, math.nan):
        with pytest.raises(ValueRangeError, match="Share of energy"):
            energy_rank([1.0], q)
