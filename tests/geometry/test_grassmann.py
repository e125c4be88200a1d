"""phi, principal angles and distances: oracles, answers known by hand, theorems."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import distances, overlap, phi_grid, principal_angles, product_frame, row_frame

THETAS = [
    0.0,
    1e-12,
    1e-9,
    1e-6,
    1e-3,
    9.9e-3,
    1.1e-2,
    0.3,
    math.pi / 4,
    1.2,
    math.pi / 2 - 1e-7,
    math.pi / 2,
]


def phi(A, A_other):
    return phi_grid(overlap(row_frame(A), row_frame(A_other)))


def angles(U, V):
    return principal_angles(row_frame(U.T), row_frame(V.T))


@st.composite
def pairs(draw):
    """Two factors over one space, generic: of full rank, with singular values that do not tie."""
    d = draw(st.integers(2, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    i, j = draw(st.integers(1, min(d, 8))), draw(st.integers(1, min(d, 8)))
    shared = draw(st.floats(0, 1))
    A, A_other = (np.diag(2.0 ** -np.arange(r)) @ oracles.haar(d, r, rng).T for r in (i, j))
    p = min(i, j)
    A_other[:p] = shared * A[:p] + (1 - shared) * A_other[:p]
    assume(np.linalg.cond(A_other) < 1e6)  # opposite rows may have cancelled
    return A, A_other, rng


@given(pairs())
@settings(max_examples=60, deadline=None)
def test_phi_is_in_range_symmetric_and_monotone(pair):
    A, A_other, _ = pair
    grid = phi(A, A_other)
    assert ((grid >= 0) & (grid <= 1)).all()
    np.testing.assert_allclose(grid, phi(A_other, A).T, atol=1e-14)
    energy = grid * np.minimum.outer(np.arange(1, grid.shape[0] + 1), np.arange(1, grid.shape[1] + 1))
    assert (np.diff(energy, axis=0) >= -1e-13).all()
    assert (np.diff(energy, axis=1) >= -1e-13).all()
    np.testing.assert_allclose(np.diag(phi(A, A)), 1, atol=1e-12)


@given(pairs(), st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_phi_does_not_see_scale_mixing_or_rotation(pair, scale):
    A, A_other, rng = pair
    r, d = A.shape
    grid = phi(A, A_other)
    np.testing.assert_allclose(phi(-scale * A, A_other), grid, atol=1e-9)
    np.testing.assert_allclose(phi(oracles.haar(r, r, rng) @ A, A_other), grid, atol=1e-9)
    Q = oracles.haar(d, d, rng)
    np.testing.assert_allclose(phi(A @ Q, A_other @ Q), grid, atol=1e-9)
    mixing = rng.standard_normal((r, r)) + 3 * np.eye(r)
    np.testing.assert_allclose(phi(mixing @ A, A_other)[-1, -1], grid[-1, -1], atol=1e-8)


@given(pairs())
@settings(max_examples=60, deadline=None)
def test_phi_is_the_projection_metric_and_the_mean_squared_cosine(pair):
    A, A_other, _ = pair
    corner, p = phi(A, A_other)[-1, -1], min(len(A), len(A_other))
    U, V = oracles.right_vectors(A), oracles.right_vectors(A_other)
    theta = principal_angles(row_frame(A), row_frame(A_other))
    np.testing.assert_allclose(theta, oracles.angles(U, V), atol=1e-7)
    np.testing.assert_allclose(np.sum(np.cos(theta) ** 2) / p, corner, atol=1e-12)
    if len(A) == len(A_other):
        d = np.linalg.norm(U @ U.T - V @ V.T) / math.sqrt(2)
        np.testing.assert_allclose(corner, 1 - d**2 / p, atol=1e-12)
        np.testing.assert_allclose(distances(theta)["chordal"], d, atol=1e-7)


def test_the_papers_last_line_has_its_bracket_in_the_wrong_place():
    U, V = oracles.planted(np.full(4, math.acos(math.sqrt(0.1403))), 64, np.random.default_rng(0))
    d, p, corner = distances(angles(U, V))["chordal"], 4, phi(U.T, V.T)[-1, -1]
    assert corner == pytest.approx(0.1403)
    assert 1 - d**2 / p == pytest.approx(corner)
    assert (1 - d**2) / p == pytest.approx(-0.6097, abs=1e-4)


def test_known_grids():
    np.testing.assert_allclose(phi(np.diag([3.0, 2.0, 1.0]), np.diag([3.0, 2.0, 1.0])), np.ones((3, 3)))
    # the same two directions in the other order: nothing at (1, 1), everything at (2, 2)
    swapped = phi(np.diag([2.0, 1.0, 0.0]), np.diag([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(swapped, [[0, 1], [1, 1]], atol=1e-15)
    half = phi(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]))
    np.testing.assert_allclose(half, [[0.5]])


def test_a_contained_span_scores_one_and_an_orthogonal_one_zero():
    A = np.random.default_rng(0).standard_normal((5, 30))
    np.testing.assert_allclose(phi(A, A[:2])[-1, :], 1, atol=1e-13)
    U, V = oracles.planted(np.full(3, math.pi / 2), 12, np.random.default_rng(1))
    np.testing.assert_allclose(phi(U.T, V.T), 0, atol=1e-14)


def test_phi_of_a_is_not_a_function_of_the_update_but_phi_of_its_sides_is():
    rng = np.random.default_rng(0)
    B, A, G = rng.standard_normal((64, 8)), rng.standard_normal((8, 64)), np.diag(np.logspace(0, 3, 8)[::-1])
    before, after = (B, A), (B @ np.linalg.inv(G), oracles.haar(8, 8, rng) @ G @ A)
    after = (B @ np.linalg.inv(after[1] @ np.linalg.pinv(A)), after[1])
    on_A = phi(before[1], after[1])
    assert on_A[0, 0] < 0.5
    np.testing.assert_allclose(on_A[7, 7], 1, atol=1e-10)
    for side in ("left", "right"):
        grid = phi_grid(overlap(product_frame(*before, side=side), product_frame(*after, side=side)))
        np.testing.assert_allclose(np.diag(grid), 1, atol=1e-8)


def test_a_shared_start_looks_like_agreement_until_it_is_removed():
    rng = np.random.default_rng(0)
    start = rng.uniform(-1, 1, (8, 768)) / math.sqrt(768)
    first, second = (start + 0.002 * rng.standard_normal(start.shape) for _ in range(2))
    assert phi(first, second)[7, 7] > 0.98
    assert phi(first - start, second - start)[7, 7] < 0.03


def test_full_spaces_agree_whatever_they_hold():
    # two unrelated rank-8 updates compared by ALL left vectors of the dense matrix score 1: a known error
    rng = np.random.default_rng(0)
    frames = [
        product_frame(rng.standard_normal((64, 8)), rng.standard_normal((8, 64)), side="left")
        for _ in range(2)
    ]
    grid = phi_grid(overlap(*frames))
    assert grid.shape == (8, 8)
    assert grid[7, 7] == pytest.approx(8 / 64, abs=0.06)


@pytest.mark.parametrize("G", [2 * np.eye(2), [[np.nan]], [[np.inf]]])
def test_what_is_no_overlap_is_refused(G):
    with pytest.raises(ValueRangeError, match="overlap of orthonormal frames: phi would be"):
        phi_grid(G)


@pytest.mark.parametrize("theta", THETAS)
def test_planted_angles_along_the_axes(theta):
    U, V = oracles.planted([theta], 9)
    np.testing.assert_allclose(angles(U, V), [theta], rtol=1e-6, atol=0)


def test_all_planted_angles_at_once():
    U, V = oracles.planted(THETAS, 2 * len(THETAS) + 3)
    np.testing.assert_allclose(angles(U, V), THETAS, rtol=1e-6, atol=1e-16)


@pytest.mark.parametrize("theta", THETAS)
def test_planted_angles_anywhere(theta):
    # a rotation rounds every coordinate, so below 1e-9 only the absolute error can be small
    U, V = oracles.planted([theta, theta], 40, np.random.default_rng(0))
    np.testing.assert_allclose(angles(U, V), [theta, theta], rtol=1e-6, atol=2e-15)


@pytest.mark.parametrize(("i", "j"), [(3, 3), (3, 7), (7, 3)])
def test_angles_of_spans_of_unequal_dimensions(i, j):
    theta = [1e-8, 1e-3, 1.0]
    U, V = oracles.planted(theta, 30, np.random.default_rng(0), i=i, j=j)
    np.testing.assert_allclose(angles(U, V), theta, rtol=1e-6)
    # SciPy 1.17 takes the arccos of the smallest of several angles where the largest is above pi/4
    np.testing.assert_allclose(angles(U, V), oracles.angles(U, V), atol=3e-8)


def test_angles_of_ill_conditioned_factors():
    rng = np.random.default_rng(0)
    U, V = oracles.planted([1e-6, 1e-3, 0.5], 50, rng)
    mixed = (U @ rng.standard_normal((3, 3)) * np.array([1, 1e-2, 1e-4])).T
    np.testing.assert_allclose(
        principal_angles(row_frame(mixed), row_frame(V.T)), [1e-6, 1e-3, 0.5], rtol=1e-5
    )


def test_no_directions_no_angles():
    empty = row_frame(np.zeros((2, 5)))
    assert principal_angles(empty, row_frame(np.eye(5))).shape == (0,)
    assert all(math.isnan(value) for value in distances([]).values())


def test_angles_take_a_known_overlap():
    first, second = row_frame(np.eye(3)[:2]), row_frame(np.eye(3)[1:])
    np.testing.assert_allclose(principal_angles(first, second, G=overlap(first, second)), [0, math.pi / 2])


@given(st.lists(st.floats(1e-3, math.pi / 2 - 1e-3), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_distances_are_those_of_the_table(theta):
    found, expected = distances(theta), oracles.distance_table(theta)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-8, abs=1e-9), name


@pytest.mark.parametrize(
    "name", ["geodesic", "chordal", "binet_cauchy", "fubini_study", "martin", "procrustes"]
)
def test_small_angles_keep_their_digits(name):
    assert distances([1e-10])[name] == pytest.approx(1e-10, rel=1e-9)


def test_orthogonal_and_equal_spans():
    far, near = distances([math.pi / 2]), distances([0.0, 0.0])
    assert far["martin"] == math.inf
    assert far["fubini_study"] == pytest.approx(math.pi / 2)
    assert set(near.values()) == {0.0}


def test_unequal_dimensions_with_and_without_the_difference():
    contained, metric = distances([0.0, 0.0], 2, 5), distances([0.0, 0.0], 2, 5, containing=False)
    assert set(contained.values()) == {0.0}
    assert metric["chordal"] == pytest.approx(math.sqrt(3))
    assert metric["geodesic"] == pytest.approx(math.sqrt(3) * math.pi / 2)


def test_distances_refuse_what_are_no_angles():
    with pytest.raises(ValueRangeError, match="pi/2"):
        distances([2.0])
    with pytest.raises(ValueRangeError, match="pi/2"):
        distances([math.nan])
    with pytest.raises(ShapeError, match="min"):
        distances([0.1], 2, 3)
