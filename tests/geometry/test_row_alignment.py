"""Row alignment: closed form against every permutation, what it does not depend on, size and power by simulation."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import oracles
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.row_alignment import (
    Alignment,
    combined,
    row_alignment,
    row_alignment_of,
    start_verdict,
    whitened_alignment,
)


def nearest_orthonormal(A):
    """Polar factor by the singular value decomposition of A itself."""
    U, _, Vh = np.linalg.svd(A, full_matrices=False)
    return U @ Vh


def moved(A, ratio, rng, *, rank=3, power=0.0, mean=0.0, mean_direction=None):
    """`A` plus an update of that rank in the span of inputs, its norm a multiple of that of `A`."""
    r, d = A.shape
    variance = np.arange(1, d + 1.0) ** -power
    X = rng.standard_normal((min(rank, r), d)) * np.sqrt(variance / variance.sum() * (1 - mean))
    if mean:
        X += np.sqrt(mean) * rng.choice([-1, 1], (len(X), 1)) * mean_direction
    update = rng.standard_normal((r, len(X))) @ X
    return A + ratio * np.linalg.norm(A) / np.linalg.norm(update) * update


STARTS = {
    "gaussian": lambda r, d, rng: rng.standard_normal((r, d)) / np.sqrt(d),
    "uniform": lambda r, d, rng: rng.uniform(-1, 1, (r, d)) / np.sqrt(d),
    "orthogonal": lambda r, d, rng: oracles.haar(d, r, rng).T,
}


def z_values(r, r_other, d, ratio, *, shared, n, start="gaussian", seed=0, **inputs):
    rng = np.random.default_rng([seed, r, r_other, d])
    mean_direction = oracles.haar(d, 1, rng)[:, 0]
    found = []
    for _ in range(n):
        second = STARTS[start](r_other, d, rng)
        first = second[:r] if shared else STARTS[start](r, d, rng)
        pair = (moved(A, ratio, rng, mean_direction=mean_direction, **inputs) for A in (first, second))
        found.append(row_alignment(*pair))
    return found


@pytest.mark.parametrize(("r", "r_other"), [(2, 2), (3, 3), (5, 5), (6, 6), (1, 4), (2, 5), (5, 6)])
def test_mean_and_sd_are_those_of_every_assignment_of_rows(r, r_other):
    rng = np.random.default_rng(r)
    first, second = rng.standard_normal((r, 12)), rng.standard_normal((r_other, 12))
    C = nearest_orthonormal(first) @ nearest_orthonormal(second).T
    traces = [sum(C[k, where[k]] for k in range(r)) for where in permutations(range(r_other))]
    by_hand = (np.trace(C) - np.mean(traces)) / np.std(traces)
    assert row_alignment(first, second).z == pytest.approx(by_hand, rel=1e-10)
    assert row_alignment(second, first).z == pytest.approx(by_hand, rel=1e-10)


@pytest.mark.parametrize(("r", "r_other"), [(2, 2), (8, 8), (64, 64), (1, 4), (3, 4), (8, 64)])
def test_largest_bounds_z_and_is_reached(r, r_other):
    rng = np.random.default_rng(0)
    n = r_other
    largest = whitened_alignment(np.eye(r, n)).largest
    assert largest == pytest.approx(n - 1 if r == n else math.sqrt(r * (n - 1)))
    for _ in range(50):
        assert abs(whitened_alignment(rng.standard_cauchy((r, n))).z) <= largest + 1e-9
    best = np.eye(r, n) + (1 / (n - r) if r < n else 0) * np.eye(r, n).sum(axis=0)
    assert whitened_alignment(best).z == pytest.approx(largest)
    assert whitened_alignment(-best).z == pytest.approx(-largest)


def test_it_sees_neither_scale_nor_coordinates_nor_a_renumbering_of_both():
    rng = np.random.default_rng(1)
    start = rng.standard_normal((8, 96))
    first, second = moved(start, 1, rng), moved(start, 1, rng)
    z = row_alignment(first, second).z
    assert z > 6
    order, Q = rng.permutation(8), oracles.haar(96, 96, rng)
    assert row_alignment(first[order], second[order]).z == pytest.approx(z, rel=1e-9)
    assert row_alignment(first @ Q, second @ Q).z == pytest.approx(z, rel=1e-9)
    assert row_alignment(1e-150 * first, -1e200 * second).z == pytest.approx(-z, rel=1e-9)
    assert abs(row_alignment(first, second[::-1]).z) < 4


@pytest.mark.parametrize(("r", "r_other"), [(4, 4), (64, 64), (3, 16)])
def test_products_of_rows_are_enough(r, r_other):
    rng = np.random.default_rng(2)
    start = rng.standard_normal((r_other, 200))
    first, second = moved(start[:r], 1, rng), moved(start, 1, rng)
    whole = row_alignment(first, second)
    parts = row_alignment_of(first @ first.T, first @ second.T, second @ second.T)
    direct = whitened_alignment(nearest_orthonormal(first) @ nearest_orthonormal(second).T)
    assert parts[0] == pytest.approx(whole.z, rel=1e-9) and parts[1:] == whole[1:]
    assert direct.z == pytest.approx(whole.z, rel=1e-7)


def test_dependent_rows_leave_the_others_to_compare():
    rng = np.random.default_rng(3)
    start = rng.standard_normal((12, 300))
    start[4], start[7] = 0, start[6]
    found = row_alignment(moved(start, 0.1, rng, rank=1), start)
    assert 6 < found.z < found.largest == 11


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.ones((1, 9)), np.ones((1, 9))),
        (np.zeros((4, 9)), np.eye(4, 9)),
        (np.eye(4, 9), np.eye(9)[4:8]),
        (np.eye(2, 9), np.zeros((4, 9))),
    ],
)
def test_nothing_to_compare_is_nan(first, second):
    found = row_alignment(first, second)
    assert math.isnan(found.z) and start_verdict(found) == "cannot_tell"


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ShapeError, match=r"different input dimensions: shapes \(2, 4\) and \(2, 5\)"):
        row_alignment(np.eye(2, 4), np.eye(2, 5))
    with pytest.raises(ShapeError, match=r"do not fit together: shapes \(2, 2\), \(3, 2\), \(3, 3\)"):
        row_alignment_of(np.eye(2), np.eye(3, 2), np.eye(3))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueRangeError, match="Not a finite number"):
            row_alignment(np.eye(2, 4), np.full((2, 4), bad))


def test_modules_are_combined_over_those_that_can_be_tested():
    one, none = Alignment(6.0, 7.0, 8), Alignment(math.nan, 0.0, 1)
    assert combined([one, none, one, one, none, one]) == Alignment(12.0, 14.0, 32)
    assert math.isnan(combined([none]).z) and combined([])[1:] == (0.0, 0)
    # two rows are one sign a module: enough of them tell
    assert start_verdict(combined([Alignment(1.0, 1.0, 2)] * 24)) == "cannot_tell"
    assert start_verdict(combined([Alignment(1.0, 1.0, 2)] * 25)) == "common"


def test_what_one_row_can_do_by_accident_is_not_a_start():
    """All that two adapters share sits in row 5 of both: z is 7.9 of 63."""
    C = np.zeros((64, 64))
    C[5, 5] = 1
    found = whitened_alignment(C)
    assert found.z == pytest.approx(math.sqrt(63))
    assert start_verdict(found) == "cannot_tell"


@pytest.mark.parametrize(("ratio", "least"), [(0.35, 6.8), (1.04, 6.2), (1.73, 5.4)])
def test_a_shared_start_is_seen_through_learning(ratio, least):
    for inputs in ({}, {"power": 1}, {"mean": 0.7}, {"rank": 8, "power": 1}):
        found = z_values(8, 8, 768, ratio, shared=True, n=10, **inputs)
        assert np.mean([one.z for one in found]) >= least
        assert start_verdict(combined(found)) == "common"


@pytest.mark.parametrize("inputs", [{}, {"mean": 0.7}, {"power": 2}])
def test_different_starts_give_mean_0_and_variance_1(inputs):
    n = 200
    found = z_values(8, 8, 128, 1.73, shared=False, n=n, **inputs)
    z = [one.z for one in found]
    assert np.mean(z) == pytest.approx(0, abs=4 / np.sqrt(n))
    assert np.std(z) == pytest.approx(1, abs=0.2)
    assert max(np.abs(z)) < 5
    assert start_verdict(combined(found)) == "different"


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("inputs", [{}, {"power": 1, "mean": 0.3}, {"power": 2, "mean": 0.7}, {"rank": 64}])
@pytest.mark.parametrize(
    ("r", "r_other", "d"), [(2, 2, 64), (4, 4, 64), (8, 8, 768), (16, 16, 256), (64, 64, 256), (8, 64, 256)]
)
def test_size_and_power(r, r_other, d, inputs, start):
    """Every pair a module: none of another start is called common, none of one start different; files of 12 decide."""
    for ratio in (0.35, 1.04, 1.73):
        n = 96 if r_other < 64 else 24
        null = z_values(r, r_other, d, ratio, shared=False, n=n, start=start, **inputs)
        alike = z_values(r, r_other, d, ratio, shared=True, n=n, start=start, **inputs)
        assert abs(np.mean([one.z for one in null])) < 4.5 / np.sqrt(n)
        verdicts = {start_verdict(one) for one in null}, {start_verdict(one) for one in alike}
        assert "common" not in verdicts[0] and "different" not in verdicts[1]
        size = 48 if r == 2 else 12
        files = [start_verdict(combined(alike[k : k + size])) for k in range(0, n, size)]
        if r > 2 or ratio < 1:
            assert set(files) == {"common"}
        files = {start_verdict(combined(null[k : k + size])) for k in range(0, n, size)}
        assert "common" not in files
