"""The shared-dimension test: size, power, later steps, spans too large to be generic."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import holm, largest_root_p, sample_cos2, shared_dimension_p
from subspace.geometry.tails import beta_tail, gamma_tail


@pytest.mark.parametrize("shape", [0.5, 1.0, 46.446, 300.0])
def test_gamma_tail(shape):
    for x in np.concatenate([np.linspace(0.01, 3 * shape + 20, 60), [10 * shape]]):
        assert gamma_tail(x, shape) == pytest.approx(oracles.gamma_tail(x, shape), rel=1e-10, abs=1e-290)
    assert gamma_tail(-1.0, shape) == 1
    assert gamma_tail(1e6, shape) == 0


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.5, 31.5), (4, 124), (4, 6140), (0.5, 6143.5), (500, 20)])
def test_beta_tail(a, b):
    for x in np.concatenate([np.linspace(1e-4, 0.9999, 60), np.linspace(0.2, 5, 20) * a / (a + b)]):
        if x < 1:
            assert beta_tail(x, a, b) == pytest.approx(oracles.beta_tail(x, a, b), rel=1e-9, abs=1e-290)
    assert (beta_tail(0, a, b), beta_tail(1, a, b)) == (1, 0)


def sizes(p, *levels):
    return [float(np.mean(np.asarray(p) <= level)) for level in levels]


def null_p(i, j, d, n, seed=0):
    forced = max(0, i + j - d)
    dimensions = (d - j, d - i, d) if forced else (i, j, d)
    return [
        largest_root_p(c, *dimensions)
        for c in sample_cos2(i, j, d, n=n, rng=np.random.default_rng(seed))[:, forced]
    ]


@pytest.mark.parametrize(
    ("i", "j", "d"),
    [(2, 2, 256), (4, 4, 512), (8, 8, 768), (8, 64, 768), (8, 64, 4096), (5, 6, 8), (30, 40, 64)],
)
def test_size_is_nominal_or_a_little_below(i, j, d):
    five, one = sizes(null_p(i, j, d, 20_000), 0.05, 0.01)
    assert 0.026 <= five <= 0.052
    assert 0.001 <= one <= 0.0105


@pytest.mark.slow
@pytest.mark.parametrize(("i", "j", "d"), [(64, 64, 4096), (64, 64, 12288), (32, 64, 12288)])
def test_size_of_large_spans(i, j, d):
    five, one = sizes(null_p(i, j, d, 8000), 0.05, 0.01)
    assert 0.03 <= five <= 0.056
    assert 0.002 <= one <= 0.0125


@pytest.mark.parametrize(
    ("i", "j", "d"), [(2, 2, 4), (3, 9, 12), (8, 8, 16), (24, 40, 64), (2, 2, 5), (3, 8, 12), (8, 9, 18)]
)
def test_spans_that_fill_the_space_or_all_but_one_dimension(i, j, d):
    p = null_p(i, j, d, 2000)
    ten, one = sizes(p, 0.1, 0.01)
    assert 0.06 <= ten <= 0.125 and 0.003 <= one <= 0.02
    if i + j == d - 1:
        assert np.mean(p) == pytest.approx(0.5, abs=0.03)  # exact: uniform


@pytest.mark.parametrize("d", [2, 3, 4, 7, 64, 128, 129, 200])
def test_any_two_sizes_have_a_p_value(d):
    for i in {1, 2, d // 2, d - 1, d} - {0}:
        for j in {1, 2, d // 2, d - i, d - i - 1, d - 1, d} - {0, -1}:
            p = [largest_root_p(c, i, j, d) for c in (0.0, 1e-12, 0.5, 1 - 1e-12, 1.0)]
            assert all(math.isnan(x) for x in p) if max(i, j) == d else p == sorted(p, reverse=True), (i, j)


@pytest.mark.parametrize(("j", "d"), [(1, 64), (8, 768)])
def test_one_direction_has_its_exact_size(j, d):
    five, one = sizes(null_p(1, j, d, 20_000), 0.05, 0.01)
    assert five == pytest.approx(0.05, abs=0.006)
    assert one == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("shared", [1, 3])
def test_later_steps_are_calibrated(shared):
    """Spans that share some directions exactly, the rest Haar-random in the complement."""
    i, j, d, n = 6, 8, 96, 4000
    rng = np.random.default_rng(0)
    rest = sample_cos2(i - shared, j - shared, d - shared, n=n, rng=rng)
    p = np.array([shared_dimension_p(np.concatenate([np.ones(shared), c]), i, j, d) for c in rest])
    counts = np.count_nonzero(p <= 0.05, axis=1)
    assert (counts >= shared).all()
    assert 0.025 <= np.mean(counts > shared) <= 0.06


def test_later_steps_after_a_direction_shared_nearly():
    """Real Haar frames with one planted angle well above chance: the second step stays calibrated."""
    i, j, d, n = 4, 5, 64, 1500
    rng = np.random.default_rng(1)
    counts = []
    for _ in range(n):
        U, V = oracles.haar(d, i, rng), oracles.haar(d, j, rng)
        V[:, 0] = 0.95 * U[:, 0] + math.sqrt(1 - 0.95**2) * V[:, 0]
        cos2 = np.linalg.svd(U.T @ np.linalg.qr(V)[0], compute_uv=False) ** 2
        counts.append(np.count_nonzero(shared_dimension_p(cos2, i, j, d) <= 0.05))
    assert np.mean(np.array(counts) >= 1) == 1
    assert np.mean(np.array(counts) >= 2) <= 0.07


@pytest.mark.parametrize(("cosine", "least"), [(0.3, 0.9), (0.2, 0.15)])
def test_power_against_one_planted_direction(cosine, least):
    """Largest cosines of (8, 64, 768) spans reach 0.44 by chance; a planted one adds to them."""
    i, j, d, n = 8, 8, 768, 300
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(n):
        U, V = oracles.haar(d, i, rng), oracles.haar(d, j, rng)
        V[:, 0] = cosine * U[:, 0] + math.sqrt(1 - cosine**2) * V[:, 0]
        top = np.linalg.norm(U.T @ np.linalg.qr(V)[0], 2) ** 2
        found += largest_root_p(top, i, j, d) <= 0.01
    assert found / n >= least


def test_spans_that_must_meet():
    U, V = (oracles.haar(8, k, np.random.default_rng(k)) for k in (5, 6))
    cos2 = np.linalg.svd(U.T @ V, compute_uv=False) ** 2
    p = shared_dimension_p(cos2, 5, 6, 8)
    assert p[:3].tolist() == [1, 1, 1]
    assert ((p[3:] > 0) & (p[3:] < 1)).all()
    assert largest_root_p(1.0, 5, 6, 8) == 1


def test_the_whole_space_tests_nothing():
    assert math.isnan(largest_root_p(1.0, 3, 8, 8))
    assert np.isnan(shared_dimension_p([1, 1, 1], 3, 8, 8)).all()


def test_ends_of_the_range():
    assert largest_root_p(0.0, 4, 4, 64) == 1
    assert largest_root_p(1.0 + 1e-12, 4, 4, 64) == 0
    p = [largest_root_p(c, 4, 4, 64) for c in np.linspace(0, 1, 50)]
    assert (np.diff(p) <= 0).all()
    with pytest.raises(ValueRangeError, match="Squared cosine"):
        largest_root_p(1.1, 1, 1, 4)
    with pytest.raises(ValueRangeError, match="Squared cosine"):
        largest_root_p(math.nan, 1, 1, 4)
    with pytest.raises(ShapeError, match="min"):
        shared_dimension_p([0.5], 2, 2, 8)


def test_later_values_never_look_more_significant():
    p = shared_dimension_p([0.3, 0.29, 0.28, 0.27], 4, 4, 64)
    assert (np.diff(p) >= 0).all()


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm(p):
    adjusted = holm(p)
    assert all(a >= value for a, value in zip(adjusted, p, strict=True))
    for value, a in zip(p, adjusted, strict=True):
        smaller = sorted(p)
        by_hand = max(min(1, v * (len(p) - n)) for n, v in enumerate(smaller) if v <= value)
        assert a == pytest.approx(by_hand)


def test_holm_leaves_out_what_was_not_tested():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = holm([math.nan, 0.01, 0.02])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.02, 0.02])
