"""Groups with one random start: none invented among 200 adapters, planted ones found, a false pair joins nothing."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.geometry.row_alignment import Alignment, combined, row_alignment, start_verdict
from subspace.geometry.start_groups import groups_of, start_bound, start_groups

UPPER = np.triu_indices(200, 1)


def library(start, r, d, m, *, move=1.0, one_row=False, mean_share=1.0, seed=0):
    """z, largest and r of all pairs over m modules; adapters with one number in `start` begin at one A.

    Updates of rank 3 lie in inputs with a spectrum k^-2 and a mean direction; of `one_row` all sits in one row of A.
    """
    rng = np.random.default_rng(seed)
    N = len(start)
    z, variance = np.zeros((N, N)), np.arange(1, d + 1.0) ** -2
    for _ in range(m):
        mean = rng.standard_normal(d) * np.sqrt(mean_share / d)
        starts = {number: rng.uniform(-1, 1, (r, d)) for number in set(start)}
        rows = []
        for number in start:
            X = rng.standard_normal((3, d)) * np.sqrt(variance) + mean
            C = np.zeros((r, 3))
            C[rng.integers(r) if one_row else slice(None)] = (
                rng.uniform(0, 1, 3) if one_row else rng.standard_normal((r, 3))
            )
            A = starts[number]
            A = A + move * np.linalg.norm(A) / np.linalg.norm(C @ X) * (C @ X)
            U, _, Vh = np.linalg.svd(A, full_matrices=False)
            rows.append(U @ Vh)
        centred = np.concatenate([each - each.mean(axis=0) for each in rows])
        D = (centred @ centred.T).reshape(N, r, N, r)
        z += np.einsum("iaja->ij", D) / np.sqrt(np.einsum("iajb,iajb->ij", D, D) / (r - 1))
    return z / np.sqrt(m), np.full((N, N), (r - 1) * np.sqrt(m)), np.full((N, N), r * m)


def test_the_simulation_computes_what_the_package_does():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((3, 4, 30))
    whole = combined([row_alignment(A[0], A[1]), row_alignment(A[0], A[2])])
    z, largest, r = library([0, 1], 4, 30, 2)
    assert np.isfinite(z).all()
    assert (largest[0, 1], r[0, 1]) == pytest.approx((whole.largest, whole.r))


@pytest.mark.parametrize(
    ("r", "m", "one_row"),
    [(8, 1, False), (8, 4, False), (4, 12, False), (16, 1, False), (8, 1, True), (8, 2, True), (8, 6, True)],
)
def test_none_is_invented_among_200_adapters(r, m, one_row):
    z, largest, rows = library(range(200), r, 48, m, move=5.0 if one_row else 1.0, one_row=one_row, seed=1)
    assert start_groups(z, largest, rows).groups == []


@pytest.mark.slow
def test_a_bound_for_one_pair_alone_would_invent_some():
    """All in common in one row of each of three modules: for one pair in 4096 it is the same row in all of them."""
    z, largest, r = library(range(200), 16, 600, 3, move=9.0, one_row=True, mean_share=50.0, seed=5)
    pairs = [Alignment(*values) for values in zip(z[UPPER], largest[UPPER], r[UPPER], strict=True)]
    assert 2 <= sum(start_verdict(pair) == "common" for pair in pairs) <= 20
    assert start_groups(z, largest, r).groups == []


@pytest.mark.parametrize(
    ("r", "m", "move"), [(8, 1, 0.35), (8, 8, 1.73), (16, 1, 1.73), (4, 12, 1.04), (8, 8, 3.0)]
)
def test_planted_groups_are_found_whole(r, m, move):
    start = [0] * 9 + [1] * 4 + list(range(2, 50))
    order = np.random.default_rng(2).permutation(len(start))
    start = np.array(start)[order]
    found = start_groups(*library(start, r, 64, m, move=move, seed=3))
    assert found.groups == [tuple(np.flatnonzero(start == n)) for n in (0, 1)]
    assert found.untestable == ()


def test_one_false_pair_joins_no_two_groups():
    start = np.array([0] * 5 + [1] * 5)
    z, largest, r = library(start, 8, 64, 8)
    z[0, 9] = z[9, 0] = 19.0
    assert start_groups(z, largest, r).groups == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]


def test_members_that_no_pair_can_show_anything_of_are_listed():
    z, largest, r = library(np.array([0, 0, 0, 1]), 8, 64, 8)
    N = len(z) + 2
    z = np.pad(z, (0, 2), constant_values=np.nan)
    largest, r = np.pad(largest, (0, 2), constant_values=np.nan), np.pad(r, (0, 2))
    z[5, :4] = z[:4, 5] = 1.7  # two rows: at most 2.6, whatever their start
    largest[5, :4] = largest[:4, 5] = 2.6
    r[5, :4] = r[:4, 5] = 2
    found = start_groups(z, largest, r)
    assert found.groups == [(0, 1, 2)] and found.untestable == (4, 5) and N == 6


def test_the_bound_grows_with_the_number_of_pairs_and_is_within_reach():
    bounds = [start_bound(7 * 12**0.5, 96, 0.01 / (n * (n - 1) / 2)) for n in (2, 39, 200, 2000)]
    assert bounds == sorted(bounds) and bounds[-1] < 7 * 12**0.5 / 2


@pytest.mark.parametrize(("r", "m"), [(8, 1), (8, 3), (3, 6)])
def test_counted_accidents_have_the_probability_that_the_bound_states(r, m):
    """Each module has all in common in one row of each adapter: z of every outcome, drawn."""
    rng = np.random.default_rng(4)
    equal = rng.integers(r, size=(100_000, m)) == rng.integers(r, size=(100_000, m))
    one = np.where(equal, np.sqrt(r - 1), -1 / np.sqrt(r - 1)).sum(axis=1) / np.sqrt(m)
    exact = combined([Alignment(np.sqrt(r - 1), r - 1, r)] * m)
    assert one.max() <= exact.z + 1e-12
    for q in (0.05, 0.01, 0.001):
        assert np.mean(one > start_bound(exact.largest, exact.r, q)) <= q


def test_groups_need_most_of_their_pairs():
    whole = np.ones((4, 4))
    whole[0, 3] = whole[3, 0] = 0
    assert groups_of(whole) == [(0, 1, 2, 3)]
    chain = np.eye(4, k=1) + np.eye(4, k=-1)
    assert groups_of(chain) == [(0, 1), (2, 3)]
    assert groups_of(np.zeros((3, 3))) == [] and groups_of(np.zeros((0, 0))) == []
    unknown = np.full((3, 3), np.nan)
    unknown[0, 1] = unknown[1, 0] = unknown[1, 2] = unknown[2, 1] = 1
    assert groups_of(unknown) == [(0, 1, 2)]
