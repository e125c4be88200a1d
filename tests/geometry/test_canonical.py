"""The canonical form of an update: it is the update, and no change of factors moves it."""

import numpy as np
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.canonical import canonical


def factors(r=4, d_out=20, d_in=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d_out, r)), rng.standard_normal((r, d_in))


def test_it_is_the_dense_svd_and_gives_both_factors_back():
    B, A = factors()
    found = canonical(B, A)
    U, S, Vh = np.linalg.svd(B @ A)
    np.testing.assert_allclose(found.S, S[:4], rtol=1e-12)
    np.testing.assert_allclose(np.abs(found.right[:4] @ Vh[:4].T), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(np.abs(found.left[:4] @ U[:, :4]), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(found.left[:4].T * found.S @ found.right[:4], B @ A, atol=1e-12)
    np.testing.assert_allclose(found.a @ found.right, A, atol=1e-12)
    np.testing.assert_allclose((found.b @ found.left).T, B, atol=1e-12)


def test_another_basis_of_the_factors_is_the_same_form():
    B, A = factors()
    G = np.random.default_rng(1).standard_normal((4, 4)) + 3 * np.eye(4)
    one, other = canonical(B, A), canonical(B @ np.linalg.inv(G), G @ A)
    np.testing.assert_allclose(one.S, other.S, rtol=1e-10)
    np.testing.assert_allclose(np.abs(one.right @ other.right.T), np.eye(4), atol=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_directions_that_a_deficient_b_hides_are_kept_behind_the_others(rank):
    B, A = factors()
    B[:, rank:] = 0
    found = canonical(B, A)
    assert found.k == rank
    assert found.right.shape == (4, 30)
    assert found.left.shape == (rank, 20)
    np.testing.assert_allclose(found.right @ found.right.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(found.a @ found.right, A, atol=1e-12)
    np.testing.assert_allclose((found.b @ found.left).T, B, atol=1e-12)


def test_what_is_no_update_is_refused():
    with pytest.raises(ShapeError, match="cannot be multiplied"):
        canonical(np.ones((3, 2)), np.ones((3, 4)))
    with pytest.raises(ValueRangeError, match="finite"):
        canonical(np.ones((3, 1)), [[np.nan, 1.0]])
