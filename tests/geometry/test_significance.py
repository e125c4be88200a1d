"""The shared-dimension test: exact law, size, power, later steps, spans too large to be generic."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import holm, largest_root_p, sample_cos2, shared_dimension_p
from subspace.geometry.significance import P_FLOOR
from subspace.geometry.tails import beta_tail


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.5, 31.5), (4, 124), (4, 6140), (0.5, 6143.5), (500, 20)])
def test_beta_tail(a, b):
    for x in np.concatenate([np.linspace(1e-4, 0.9999, 60), np.linspace(0.2, 5, 20) * a / (a + b)]):
        if x < 1:
            assert beta_tail(x, a, b) == pytest.approx(oracles.beta_tail(x, a, b), rel=1e-9, abs=1e-290)
    assert (beta_tail(0, a, b), beta_tail(1, a, b)) == (1, 0)
    # beyond the last number below 1 the density is a power
    power = 1e-20**b / b * math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    assert beta_tail(1.0, a, b, rest=1e-20) == pytest.approx(power, rel=1e-9, abs=1e-290)


def critical_sin2(i, j, d, level):
    """Squared sine at which the p-value is `level`."""
    low, high = 1e-300, 1.0
    for _ in range(200):
        middle = math.sqrt(low * high)
        inside = largest_root_p(1 - middle, i, j, d, sin2=middle) < level
        low, high = (middle, high) if inside else (low, middle)
    return low


LEVELS = [0.1, 0.05, 0.01, 1e-4, 1e-6, 1e-9, 1e-12]
SHAPES = [
    (2, 2, 4), (2, 2, 6), (3, 3, 6), (2, 3, 9), (3, 4, 9), (3, 9, 12), (2, 2, 768), (3, 5, 4096), (4, 4, 8),
    (4, 4, 4096), (5, 8, 30), (2, 60, 64), (7, 9, 40), (8, 8, 16), (8, 8, 768), (8, 16, 32), (8, 54, 64),
    (8, 64, 12288),
]  # fmt: skip


@pytest.mark.parametrize(("i", "j", "d"), SHAPES)
def test_the_exact_law(i, j, d):
    """An upper bound everywhere, within 0.5 % of the exact probability at 0.1 and ever closer below."""
    for level in LEVELS:
        sin2 = critical_sin2(i, j, d, level)
        p = largest_root_p(1 - sin2, i, j, d, sin2=sin2)
        excess = p / oracles.largest_root_tail(sin2, i, j, d, digits=80 + 8 * i) - 1
        assert p == pytest.approx(level, rel=1e-9)
        assert -1e-10 < excess < 0.05 * level + 1e-10


@pytest.mark.parametrize(("i", "j", "d"), [(2, 2, 4), (3, 4, 9), (8, 8, 768), (8, 54, 64)])
@pytest.mark.parametrize("level", [0.5, 0.3])
def test_it_is_a_bound_in_the_middle_too(i, j, d, level):
    sin2 = critical_sin2(i, j, d, level)
    exact = oracles.largest_root_tail(sin2, i, j, d, digits=120)
    assert exact <= level <= exact * 1.06


# squared cosine and the exact probability that the largest exceeds it, by oracles.largest_root_tail with the digits
LARGE = [
    (2, 60, 64, 0.99893, 0.00999981308896, 60),
    (2, 60, 64, 0.999998, 8.33960145697e-7, 60),
    (8, 54, 64, 0.999661, 0.0100092858809, 90),
    (8, 54, 64, 0.999999, 1.65427767597e-6, 90),
    (16, 40, 64, 0.991486, 0.00999958606055, 130),
    (16, 40, 64, 0.999034, 9.98716491493e-7, 130),
    pytest.param(32, 64, 768, 0.24617, 0.00999804911173, 200, marks=pytest.mark.slow),
    (32, 64, 768, 0.288488, 9.99964878828e-7, None),
    (64, 64, 12288, 0.021346, 0.0499475661616, None),
    (64, 64, 12288, 0.022201, 0.00999214488193, None),
    pytest.param(64, 64, 12288, 0.025803, 9.98669689893e-7, 700, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("i", "j", "d", "cos2", "exact", "digits"), LARGE)
def test_the_exact_law_of_large_spans(i, j, d, cos2, exact, digits):
    assert exact * (1 - 1e-9) < largest_root_p(cos2, i, j, d) < exact * 1.002
    if digits:
        import mpmath

        with mpmath.workdps(digits):
            sin2 = 1 - mpmath.mpf(cos2)
        assert oracles.largest_root_tail(sin2, i, j, d, digits) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(
    ("i", "j", "d"),
    [
        (2, 2, 4), (2, 2, 6), (2, 2, 256), (3, 9, 12), (4, 4, 512), (8, 8, 16), (12, 20, 32), (8, 8, 768), (8, 64, 768),
        (8, 64, 4096), (5, 6, 8), (15, 20, 32), (1, 1, 64), (8, 1, 768), (2, 2, 5), (3, 8, 12), (8, 9, 18),
    ],
)  # fmt: skip
def test_size_is_nominal(i, j, d):
    n = 20_000
    forced = max(0, i + j - d)
    largest = sample_cos2(i, j, d, n=n, rng=np.random.default_rng(0))[:, forced]
    for level in (0.05, 0.01):
        cos2 = 1 - critical_sin2(*((d - j, d - i) if forced else (i, j)), d, level)
        assert np.mean(largest > cos2) == pytest.approx(level, abs=4 * math.sqrt(level / n)), level


@pytest.mark.slow
@pytest.mark.parametrize(("i", "j", "d"), [(64, 64, 4096), (64, 64, 12288), (32, 64, 12288), (64, 64, 128)])
def test_size_of_large_spans(i, j, d):
    n = 8000
    largest = sample_cos2(i, j, d, n=n, rng=np.random.default_rng(0))[:, 0]
    for level in (0.05, 0.01):
        assert np.mean(largest > 1 - critical_sin2(i, j, d, level)) == pytest.approx(
            level, abs=4 * math.sqrt(level / n)
        )


@pytest.mark.parametrize(("i", "j", "d"), [(2, 2, 5), (3, 8, 12), (8, 9, 18)])
def test_spans_that_fill_all_but_one_dimension_have_a_power_law(i, j, d):
    from subspace.geometry.largest_root import expected_above

    for cos2 in (0.999, 0.99999):
        p = largest_root_p(cos2, i, j, d)
        assert p == pytest.approx(1 - cos2 ** (i * j / 2), rel=1e-9)
        assert p * (1 - 1e-9) <= expected_above(cos2, 1 - cos2, i, j, d) < p * (1 + 0.05 * p)


@pytest.mark.parametrize("d", [2, 3, 4, 7, 64, 128, 129, 200])
def test_any_two_sizes_have_a_p_value(d):
    for i in {1, 2, d // 2, d - 1, d} - {0}:
        for j in {1, 2, d // 2, d - i, d - i - 1, d - 1, d} - {0, -1}:
            p = [largest_root_p(c, i, j, d) for c in (0.0, 1e-12, 0.5, 1 - 1e-12, 1.0)]
            assert all(math.isnan(x) for x in p) if max(i, j) == d else p == sorted(p, reverse=True), (i, j)


@pytest.mark.parametrize(("i", "j", "d"), [(1, 1, 2), (1, 3, 8), (2, 2, 4), (2, 2, 6), (3, 4, 9), (4, 4, 64)])
def test_sines_keep_what_cosines_round_away(i, j, d):
    """Near an angle of zero the probability is a power of the angle, far beyond the last cosine below 1."""
    exponent = d - i - j + 1
    theta = np.array([1e-6, 1e-8, 1e-10])
    p = [shared_dimension_p([t] + [1.5] * (min(i, j) - 1), i, j, d)[0] for t in theta]
    if p[-1] > P_FLOOR:
        np.testing.assert_allclose(np.diff(np.log(p)), exponent * np.diff(np.log(theta)), rtol=1e-4)
    assert np.cos(1e-10) == 1 and all(x > 0 for x in p)
    assert largest_root_p(1.0, i, j, d, sin2=1e-12) == pytest.approx(p[0], rel=1e-9)


def test_no_p_value_is_zero():
    assert largest_root_p(1.0, 8, 8, 768) == largest_root_p(1.0, 1, 8, 768) == P_FLOOR > 0
    assert largest_root_p(0.99, 64, 64, 12288) == P_FLOOR
    assert shared_dimension_p(np.zeros(8), 8, 8, 768).tolist() == [P_FLOOR] * 8
    assert holm([P_FLOOR] * 4) == [4 * P_FLOOR] * 4


@pytest.mark.parametrize("shared", [1, 3])
def test_later_steps_are_calibrated(shared):
    """Spans that share some directions exactly, the rest Haar-random in the complement."""
    i, j, d, n = 6, 8, 96, 8000
    rng = np.random.default_rng(0)
    rest = np.arccos(np.sqrt(sample_cos2(i - shared, j - shared, d - shared, n=n, rng=rng)))
    p = np.array([shared_dimension_p(np.concatenate([np.zeros(shared), t]), i, j, d) for t in rest])
    for level in (0.05, 0.01):
        counts = np.count_nonzero(p <= level, axis=1)
        assert (counts >= shared).all()
        assert np.mean(counts > shared) == pytest.approx(level, abs=4 * math.sqrt(level / n))


def test_later_steps_after_a_direction_shared_nearly():
    """Real Haar frames with one planted angle far beyond random spans: the second step stays calibrated."""
    i, j, d, n = 4, 5, 64, 3000
    rng = np.random.default_rng(1)
    counts = []
    for _ in range(n):
        U, V = oracles.haar(d, i, rng), oracles.haar(d, j, rng)
        V[:, 0] = 0.95 * U[:, 0] + math.sqrt(1 - 0.95**2) * V[:, 0]
        theta = np.arccos(np.linalg.svd(U.T @ np.linalg.qr(V)[0], compute_uv=False))
        counts.append(np.count_nonzero(shared_dimension_p(theta, i, j, d) <= 0.05))
    assert np.mean(np.array(counts) >= 1) == 1
    assert 0.035 <= np.mean(np.array(counts) >= 2) <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["alike", "exclusive"])
def test_holm_holds_its_level_for_dependent_modules(kind):
    """Modules that share most of their second adapter's directions, or that exclude each other's."""
    modules, r, d, n, level = 12, 4, 64, 3000, 0.05
    rng = np.random.default_rng(5)
    false, smallest = 0, []
    for _ in range(n):
        U = oracles.haar(d, r, rng)
        if kind == "alike":
            common = rng.standard_normal((d, r))
            spans = [np.linalg.qr(common + 0.3 * rng.standard_normal((d, r)))[0] for _ in range(modules)]
        else:
            spans = np.split(oracles.haar(d, modules * r, rng), modules, axis=1)
        cosines = np.linalg.svd(U.T @ np.array(spans), compute_uv=False)
        p = [largest_root_p(min(c, 1.0) ** 2, r, r, d) for c in cosines[:, 0]]
        false += min(holm(p)) <= level
        smallest.append(p[0])
    assert np.mean(np.array(smallest) <= level) == pytest.approx(level, abs=4 * math.sqrt(level / n))
    assert false / n <= level + 3 * math.sqrt(level / n)
    assert false > 0


@pytest.mark.parametrize(("cosine", "least"), [(0.3, 0.9), (0.2, 0.15)])
def test_power_against_one_planted_direction(cosine, least):
    """Largest cosines of (8, 8, 768) random spans reach 0.2; a planted one adds to them."""
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
    theta = np.arccos(np.minimum(np.linalg.svd(U.T @ V, compute_uv=False), 1))
    p = shared_dimension_p(theta, 5, 6, 8)
    assert p[:3].tolist() == [1, 1, 1]
    assert 0 < p[3] < 1 and 0 < p[4] <= 1
    assert largest_root_p(1.0, 5, 6, 8) == 1


def test_the_whole_space_tests_nothing():
    assert math.isnan(largest_root_p(1.0, 3, 8, 8))
    assert np.isnan(shared_dimension_p([0, 0, 0], 3, 8, 8)).all()


def test_ends_of_the_range():
    assert largest_root_p(0.0, 4, 4, 64) == 1
    assert largest_root_p(1.0 + 1e-12, 4, 4, 64) == P_FLOOR
    p = [largest_root_p(c, 4, 4, 64) for c in np.linspace(0, 1, 50)]
    assert (np.diff(p) <= 0).all()
    with pytest.raises(ValueRangeError, match="Squared cosine"):
        largest_root_p(1.1, 1, 1, 4)
    with pytest.raises(ValueRangeError, match="Squared cosine"):
        largest_root_p(math.nan, 1, 1, 4)
    with pytest.raises(ValueRangeError, match="sine"):
        largest_root_p(0.5, 1, 1, 4, sin2=0.4)
    with pytest.raises(ValueRangeError, match="radians"):
        shared_dimension_p([0.5, 2.0], 2, 2, 8)
    with pytest.raises(ShapeError, match="min"):
        shared_dimension_p([0.5], 2, 2, 8)


def test_later_values_never_look_more_significant():
    p = shared_dimension_p(np.arccos(np.sqrt([0.3, 0.29, 0.28, 0.27])), 4, 4, 64)
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
