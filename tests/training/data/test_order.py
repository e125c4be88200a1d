"""Orders are permutations, within range, functions of their arguments alone, and keep what is held out apart."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.errors import ShapeError, ValueRangeError
from subspace.training.data import epoch_batch, split, split_stream, window_starts
from subspace.training.data import order as order_module

SEEDS = st.integers(0, 2**64 - 1)
SIZES = st.integers(1, 60)
FRACTIONS = st.floats(0, 0.99)


def epoch(n, batch, number, seed):
    """Epoch `number` as the batches that contain it show it."""
    first, last = number * n, (number + 1) * n
    steps = range(first // batch, -(-last // batch))
    seen = np.concatenate([epoch_batch(n, batch, step, seed=seed) for step in steps])
    return seen[first - steps[0] * batch :][:n]


@given(SIZES, st.integers(1, 150), st.integers(0, 5), SEEDS)
def test_each_epoch_is_a_permutation_whatever_the_batch(n, batch, number, seed):
    seen = epoch(n, batch, number, seed)
    assert sorted(seen) == list(range(n))
    assert np.array_equal(seen, epoch(n, n, number, seed))


@given(SIZES, st.integers(1, 150), st.integers(0, 10**12), SEEDS)
def test_a_batch_depends_on_its_arguments_alone(n, batch, step, seed):
    first = epoch_batch(n, batch, step, seed=seed)
    order_module._permutation.cache_clear()
    epoch_batch(n, batch, step + 1, seed=seed)
    again = epoch_batch(n, batch, step, seed=seed)
    assert first.dtype == np.int64
    assert first.shape == (batch,)
    assert np.array_equal(first, again)


def test_what_a_caller_does_to_a_batch_stays_with_the_caller():
    first = epoch_batch(10, 10, 0, seed=0)
    expected = first.copy()
    first[:] = -1
    assert np.array_equal(epoch_batch(10, 10, 0, seed=0), expected)


def test_epochs_and_seeds_differ():
    orders = [tuple(epoch_batch(50, 50, step, seed=seed)) for step in range(10) for seed in range(10)]
    assert len(set(orders)) == 100


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 50), st.integers(0, 2**63), SEEDS)
def test_windows_lie_within_the_stream(spare, length, batch, step, seed):
    n = length + spare - 1
    starts = window_starts(n, length, batch, step, seed=seed)
    assert starts.dtype == np.int64
    assert starts.shape == (batch,)
    assert starts.min() >= 0
    assert starts.max() <= n - length
    assert np.array_equal(starts, window_starts(n, length, batch, step, seed=seed))


def test_windows_of_steps_and_seeds_differ():
    drawn = [
        tuple(window_starts(10**9, 1, 4, step, seed=seed))
        for step in range(20)
        for seed in (0, 1, 2**32, 2**63)
    ]
    assert len(set(drawn)) == 80


def test_windows_are_uniform_and_reach_both_ends():
    starts = np.concatenate([window_starts(14, 5, 100, step, seed=3) for step in range(200)])
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10
    # chi-squared with 9 degrees of freedom: 27.9 is its 0.999 quantile
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9


def test_orders_are_those_of_every_release():
    """Written down, so that a run that was begun with one version resumes in the next as it would have gone on."""
    assert window_starts(1000, 1, 4, 7, seed=1).tolist() == [990, 463, 31, 306]
    assert epoch_batch(6, 8, 1, seed=1).tolist() == [3, 4, 1, 0, 5, 1, 4, 0]
    assert split(10, 0.3, seed=1)[1].tolist() == [0, 2, 4]


@given(SIZES, FRACTIONS, SEEDS)
def test_a_split_leaves_nothing_out_and_shares_nothing(n, fraction, seed):
    train, held = split(n, fraction, seed=seed)
    assert sorted([*train, *held]) == list(range(n))
    assert train.dtype == held.dtype == np.int64
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(held) > 0)
    if fraction == 0:
        assert len(held) == 0
    elif n >= 2:
        assert len(held) == min(max(round(fraction * n), 1), n - 1)
    assert all(map(np.array_equal, split(n, fraction, seed=seed), (train, held)))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.floats(0.01, 0.9), SEEDS)
def test_a_stratified_split_is_in_proportion(labels, fraction, seed):
    train, held = split(len(labels), fraction, seed=seed, labels=labels)
    assert sorted([*train, *held]) == list(range(len(labels)))
    share = len(held) / len(labels)
    for label in set(labels):
        size = labels.count(label)
        assert abs(sum(labels[i] == label for i in held) - share * size) < max(2, len(set(labels)))


def test_a_stratified_split_is_exact_where_it_can_be():
    labels = [0] * 60 + [1] * 30 + [2] * 10
    _, held = split(100, 0.1, seed=5, labels=labels)
    assert np.bincount([labels[i] for i in held]).tolist() == [6, 3, 1]


def test_a_class_of_one_stays_in_training():
    for seed in range(20):
        train, _ = split(41, 0.1, seed=seed, labels=[0] * 40 + [1])
        assert 40 in train


def test_of_equal_classes_chance_says_which_one_gives():
    labels = [i // 2 for i in range(20)]
    held = {tuple(labels[i] for i in split(20, 0.25, seed=seed, labels=labels)[1]) for seed in range(10)}
    assert len(held) > 5


def test_seeds_hold_out_different_examples():
    assert len({tuple(split(100, 0.1, seed=seed)[1]) for seed in range(50)}) == 50


@given(st.integers(1, 3000), st.just(0) | st.floats(1e-6, 0.5), st.integers(1, 300))
def test_a_stream_is_cut_into_parts_that_cover_it(n, fraction, pieces):
    if fraction and round(1 / fraction) > n:
        with pytest.raises(ValueRangeError, match="too short to hold out"):
            split_stream(n, fraction, pieces=pieces)
        return
    train, held = split_stream(n, fraction, pieces=pieces)
    covered = sorted((part.start, part.stop) for part in [*train, *held])
    assert covered[0][0] == 0
    assert covered[-1][1] == n
    assert all(a[1] == b[0] for a, b in pairwise(covered))
    assert all(start < stop for start, stop in covered)
    assert bool(held) == (fraction > 0)
    assert train


def test_every_kth_of_equal_pieces_is_held_out():
    train, held = split_stream(2000, 0.05)
    assert [(part.start, part.stop) for part in held] == [(100 + 200 * i, 110 + 200 * i) for i in range(10)]
    assert len(train) == 11
    assert split_stream(5, 0) == ([slice(0, 5)], [])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: window_starts(3, 4, 1, 0, seed=0), "too short: 3 tokens, for windows of 4"),
        (lambda: window_starts(3, 0, 1, 0, seed=0), r"Invalid `length` 0: it must be in \[1, 2\*\*64\)"),
        (lambda: window_starts(3, 1, 0, 0, seed=0), "Invalid `batch` 0"),
        (lambda: window_starts(3, 1, 1, -1, seed=0), "Invalid `step` -1"),
        (lambda: window_starts(3, 1, 1, 0, seed=-1), "Invalid `seed`"),
        (lambda: epoch_batch(3, 1, 0, seed=2**64), "Invalid `seed`"),
        (lambda: epoch_batch(0, 1, 0, seed=0), "Invalid `n` 0"),
        (lambda: split(0, 0.1, seed=0), "Invalid `n` 0"),
        (lambda: split(3, 1.0, seed=0), r"hold out: 1.0; it must be in \[0, 1\)"),
        (lambda: split(3, float("nan"), seed=0), "hold out: nan"),
        (lambda: split_stream(3, 0.6), r"hold out: 0.6; it must be in \[0, 0.5\]"),
        (lambda: split_stream(19, 0.05), "too short to hold out 0.05 of it: 19 tokens"),
        (lambda: split_stream(10, 5e-324), "too short"),
        (lambda: split_stream(0, 0.1), "Invalid `n` 0"),
        (lambda: split_stream(10, 0.1, pieces=0), "Invalid `pieces` 0"),
    ],
)
def test_numbers_out_of_range(call, message):
    with pytest.raises(ValueRangeError, match=message):
        call()


def test_labels_for_other_examples():
    with pytest.raises(ShapeError, match="2 labels do not fit 3 examples"):
        split(3, 0.5, seed=0, labels=[0, 1])


def test_a_single_example_is_kept():
    train, held = split(1, 0.5, seed=0)
    assert (train.tolist(), held.tolist()) == ([0], [])


def test_reading_data_imports_no_heavy_library():
    code = "import sys, subspace.training.data; print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
