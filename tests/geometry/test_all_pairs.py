"""All pairs at once are what every pair is by itself: dense SVDs, SciPy's angles, and the row alignment of two A's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from subspace.errors import ShapeError
from subspace.geometry import all_pairs, chance
from subspace.geometry.all_pairs import energies, module_pairs, phi_between, phi_leading
from subspace.geometry.canonical import canonical
from subspace.geometry.row_alignment import row_alignment
from subspace.geometry.stacked_spans import SIDES, stacked

RANKS = (4, 3, 40, 1, 4, 8)


def members(ranks=RANKS, d_out=50, d_in=60, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((d_out, r)), rng.standard_normal((r, d_in))) for r in ranks]


def mixed():
    """Ranks of all kinds, two of which hide a direction of their own A or B, and one update that is zero."""
    found = members()
    found[0][0][:, 3] = 0
    found[4][1][0] = 2 * found[4][1][1]
    return [*found, (np.zeros((50, 2)), np.random.default_rng(1).standard_normal((2, 60)))]


def basis(B, A, side):
    """Directions of a side by descending singular value, from a dense SVD."""
    if not B.any():  # an update that is zero has learned no span, whatever its A is
        return np.zeros((len(B), 0))
    M = {"a": A.T, "b": B, "right": (B @ A).T, "left": B @ A}[side]
    U, S, _ = np.linalg.svd(M, full_matrices=False)
    return U[:, S / S[0] > 1e-10]


def each_pair(found, number):
    return np.array([[number(one, other) for other in found] for one in found])


def dense(side, measure):
    """A measure of the bases of two members; NaN without a direction."""

    def number(one, other):
        U, V = basis(*one, side), basis(*other, side)
        return measure(U, V) if U.shape[1] and V.shape[1] else np.nan

    return number


def energy(U, V):
    return float(np.sum((U.T @ V) ** 2))


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-13), ("float32", 1e-6)])
@pytest.mark.parametrize("side", SIDES)
def test_overlap_chance_and_distances_are_those_of_dense_bases(side, precision, tolerance):
    found = mixed()
    pairs = module_pairs(stacked([canonical(*each) for each in found], precision=precision), sides=[side])
    phi = each_pair(found, dense(side, lambda U, V: energy(U, V) / min(U.shape[1], V.shape[1])))
    np.testing.assert_allclose(pairs.phi_full(side), phi, atol=tolerance)
    d = 60 if side in ("a", "right") else 50
    isotropic = dense(side, lambda U, V: chance.phi_mean(U.shape[1], V.shape[1], d))
    np.testing.assert_array_equal(pairs.chance(side), each_pair(found, isotropic))
    apart = ~np.eye(len(found), dtype=bool)
    chordal = each_pair(found, dense(side, lambda U, V: np.linalg.norm(np.sin(subspace_angles(U, V)))))
    projector = each_pair(found, dense(side, lambda U, V: np.linalg.norm(U @ U.T - V @ V.T)))
    np.testing.assert_allclose(pairs.chordal(side)[apart], chordal[apart], atol=10 * tolerance)
    np.testing.assert_allclose(pairs.projector(side)[apart], projector[apart], atol=10 * tolerance)
    assert np.isnan(phi).sum() == 13


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_the_geodesic_is_that_of_scipys_angles(precision, tolerance):
    found = members()
    pairs = module_pairs(
        stacked([canonical(*each) for each in found], precision=precision), geodesic=["b", "right"]
    )
    apart = ~np.eye(len(found), dtype=bool)
    for side in ("b", "right"):
        angles = each_pair(found, dense(side, lambda U, V: np.linalg.norm(subspace_angles(U, V))))
        np.testing.assert_allclose(pairs.geodesic(side)[apart], angles[apart], atol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-13), ("float32", 2e-6)])
def test_the_cosine_is_that_of_dense_updates(precision, tolerance):
    found = mixed()
    pairs = module_pairs(stacked([canonical(*each) for each in found], precision=precision))
    W = np.array([(B @ A).ravel() for B, A in found])
    norms = np.linalg.norm(W, axis=1)
    np.testing.assert_allclose(pairs.norms_first, norms, rtol=1e-12)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(pairs.cosine, W @ W.T / np.outer(norms, norms), atol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_z_is_the_row_alignment_of_every_pair(precision, tolerance):
    found = mixed()
    found.append((found[1][0], found[1][1] + 0.1 * np.random.default_rng(3).standard_normal((3, 60))))
    pairs = module_pairs(stacked([canonical(*each) for each in found], precision=precision))
    assert np.isnan(pairs.z[6]).all()  # it has learned nothing
    at = np.ix_(*2 * [[n for n, (B, _) in enumerate(found) if B.any()]])
    one = np.array([[row_alignment(first[1], second[1]) for second in found] for first in found])[at]
    np.testing.assert_allclose(pairs.z[at], one[..., 0], atol=tolerance)
    np.testing.assert_allclose(pairs.z_largest[at], one[..., 1])
    np.testing.assert_array_equal(pairs.z_r[at], one[..., 2])
    assert np.isnan(pairs.z[at]).sum() == 1  # a row with itself
    assert pairs.z[1, -1] > 0.9 * pairs.z_largest[1, -1]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("i", "j"), [(1, 1), (2, 2), (3, 1), (2, 8)])
def test_leading_directions_are_those_of_dense_svds(side, i, j):
    found = mixed()

    def number(one, other):
        U, V = basis(*one, side), basis(*other, side)
        enough = U.shape[1] >= i and V.shape[1] >= j
        return energy(U[:, :i], V[:, :j]) / min(i, j) if enough else np.nan

    members_ = stacked([canonical(*each) for each in found], precision="float64")
    np.testing.assert_allclose(phi_leading(members_, None, side, i, j), each_pair(found, number), atol=1e-12)


@given(seed=st.integers(0, 2**16), ranks=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_no_change_of_factors_moves_a_number(seed, ranks):
    rng = np.random.default_rng(seed)
    found = members(ranks, 12, 10, seed)
    turned = []
    for B, A in found:
        G = rng.standard_normal((A.shape[0],) * 2) + 4 * np.eye(A.shape[0])
        turned.append((B @ np.linalg.inv(G), G @ A))
    one, other = (
        module_pairs(
            stacked([canonical(*each) for each in family], precision="float64"),
            sides=SIDES,
            geodesic=["left"],
        )
        for family in (found, turned)
    )
    for side in SIDES:
        np.testing.assert_allclose(one.phi_full(side), other.phi_full(side), atol=1e-9)
    np.testing.assert_allclose(one.cosine, other.cosine, atol=1e-9)
    np.testing.assert_allclose(one.geodesic("left"), other.geodesic("left"), atol=1e-6)
    for pairs in (one, other):
        assert (pairs.phi_full("a") >= 0).all()
        assert (pairs.phi_full("a") <= 1).all()
        np.testing.assert_allclose(pairs.cosine, pairs.cosine.T, atol=1e-14)


def numbers(pairs):
    found = [pairs.cosine, pairs.z, *pairs.geodesics.values(), *pairs.energy.values()]
    return [np.asarray(each) for each in found]


@pytest.mark.parametrize("rows", [1, 7, 16])
def test_tiles_are_the_whole_in_parts(monkeypatch, rows):
    forms = [canonical(*each) for each in mixed()]
    whole = module_pairs(stacked(forms, precision="float64"), sides=SIDES, geodesic=["a"])
    monkeypatch.setattr(all_pairs, "_ROWS", rows)
    parts = module_pairs(stacked(forms, precision="float64"), sides=SIDES, geodesic=["a"])
    for one, other in zip(numbers(whole), numbers(parts), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)  # angles of 0 are resolved to 1e-8


def test_two_families_are_a_part_of_one():
    forms = [canonical(*each) for each in mixed()]
    whole = module_pairs(stacked(forms, precision="float64"), sides=SIDES, geodesic=["a"])
    part = module_pairs(
        stacked(forms[:2], precision="float64"),
        stacked(forms[2:], precision="float64"),
        sides=SIDES,
        geodesic=["a"],
    )
    for one, other in zip(numbers(whole), numbers(part), strict=True):
        np.testing.assert_allclose(one[:2, 2:], other, atol=1e-12)
    one, other = (stacked(each, precision="float64") for each in (forms[:2], forms[2:]))
    np.testing.assert_allclose(
        phi_leading(one, other, "a", 2, 1), phi_leading(stacked(forms), None, "a", 2, 1)[:2, 2:], atol=1e-6
    )


def test_spans_of_two_modules_can_be_compared_and_of_two_spaces_not():
    one, other = ([canonical(*each) for each in members(seed=n)] for n in (0, 1))
    found = phi_between(
        stacked(one, precision="float64").spans("a"), stacked(other, precision="float64").spans("a")
    )
    np.testing.assert_allclose(found[0, 1], energy(one[0].right.T, other[1].right.T) / 3, atol=1e-13)
    with pytest.raises(ShapeError, match="different dimensions: 60 and 50"):
        energies(stacked(one).spans("a"), stacked(one).spans("b"))
    with pytest.raises(ShapeError, match="in one module: 50, 51"):
        module_pairs(stacked([*one, canonical(np.ones((51, 1)), np.ones((1, 60)))]))


def test_an_update_without_factors_has_the_sides_of_delta_w_in_their_place():
    forms = [canonical(*each) for each in members()]
    bare = replace(forms[0], a=None, b=None)
    whole, pairs = (module_pairs(stacked([first, *forms[1:]]), sides=SIDES) for first in (forms[0], bare))
    for side, other in (("a", "right"), ("b", "left")):
        both = [[bare], [replace(form, a=None, b=None) for form in forms]]
        plain = module_pairs(*(stacked(each) for each in both), sides=[side]).phi_full(side)
        np.testing.assert_allclose(plain[0], whole.phi_full(other)[0], atol=1e-6)
    assert np.isnan(pairs.z[0]).all()
    np.testing.assert_array_equal(pairs.phi_full("right"), whole.phi_full("right"))
    np.testing.assert_array_equal(pairs.cosine, whole.cosine)
    np.testing.assert_allclose(pairs.phi_full("a")[1:, 1:], whole.phi_full("a")[1:, 1:], atol=1e-6)


@pytest.mark.parametrize(("precision", "least"), [("float64", 1e-7), ("float32", 2e-3)])
def test_angles_are_resolved_to_what_the_docstring_says(precision, least):
    U = np.linalg.qr(np.random.default_rng(0).standard_normal((400, 32)))[0]
    turned = [np.cos(t) * U[:, :16] + np.sin(t) * U[:, 16:] for t in (0.0, 10 * least)]
    pairs = module_pairs(stacked([canonical(V, V.T) for V in turned], precision=precision), geodesic=["a"])
    expected = 4 * np.array([[0.0, 10 * least], [10 * least, 0.0]])  # 16 equal angles
    np.testing.assert_allclose(pairs.chordal("a"), expected, atol=4 * least)
    np.testing.assert_allclose(pairs.geodesic("a"), expected, atol=4 * least)


def test_numbers_near_the_ends_of_float64_have_a_cosine():
    found = members((2, 2), 8, 9)
    large = [(1e160 * B, 1e-10 * A) for B, A in found]
    one, other = (module_pairs(stacked([canonical(*each) for each in family])) for family in (found, large))
    np.testing.assert_allclose(one.cosine, other.cosine, atol=1e-6)


def test_orthogonal_row_spaces_have_no_alignment():
    A = np.eye(8)
    pairs = module_pairs(stacked([canonical(np.eye(4), A[:4]), canonical(np.eye(4), A[4:])]))
    assert np.isnan(pairs.z[0, 1])
    assert pairs.phi_full("a")[0, 1] == 0


def test_nothing_at_all_is_no_pairs():
    assert module_pairs(stacked([])).cosine.shape == (0, 0)
