"""Frames against a dense SVD: accuracy, ranks, ranges."""

import numpy as np
import oracles
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import factored, overlap, phi_grid, product_frame, product_frames, row_frame


def rng(seed=0):
    return np.random.default_rng(seed)


def phi(A, A_other):
    return phi_grid(overlap(row_frame(A), row_frame(A_other)))


@pytest.mark.parametrize("kappa", [1, 10, 1e2, 3e2, 1e3, 1e4, 1e5, 1e6, 1e7])
@pytest.mark.parametrize("shape", [(16, 256), (24, 100)])
def test_phi_is_that_of_a_dense_svd(kappa, shape):
    r, d = shape
    A, A_other = oracles.with_condition(r, d, kappa, rng(1)), oracles.with_condition(8, d, kappa, rng(2))
    A_other = A_other + A[:8]
    if kappa == 1:  # every direction ties: only the corner, the whole span, is determined
        A = rng(3).standard_normal(shape)
    tolerance = 1e-10 if kappa <= 1e5 else 1e-8
    np.testing.assert_allclose(phi(A, A_other), oracles.phi(A, A_other), atol=tolerance)


@pytest.mark.parametrize("kappa", [10, 1e3, 1e6, 1e9])
def test_vectors_are_orthonormal_and_carry_the_values(kappa):
    A = oracles.with_condition(12, 80, kappa, rng())
    frame = row_frame(A)
    V = frame.vectors()
    np.testing.assert_allclose(V.T @ V, np.eye(12), atol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(A @ V, axis=0), frame.S, atol=1e-13)
    np.testing.assert_allclose(frame.S, oracles.product_svd(A, np.eye(80))[1], rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_stored_type_does_not_matter(dtype):
    A = rng().standard_normal((4, 32)).astype(dtype)
    np.testing.assert_allclose(phi(A, A[:2]), oracles.phi(A, A[:2]), atol=1e-12)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e150, 1e-170, 2.0**-1000])
def test_extreme_values_change_nothing_but_the_scale(scale):
    A, B = rng(0).standard_normal((3, 20)), rng(1).standard_normal((15, 3))
    small = row_frame(A)
    frame = row_frame(A * scale)
    np.testing.assert_allclose(np.abs(np.diag(overlap(small, frame))), 1, atol=1e-12)
    np.testing.assert_allclose(frame.S / scale, small.S, rtol=1e-12)
    np.testing.assert_allclose(
        product_frame(B, A * scale).S / scale, factored.singular_values(B, A), rtol=1e-12
    )
    np.testing.assert_allclose(factored.norm(B * scale, A / scale), factored.norm(B, A), rtol=1e-12)
    np.testing.assert_allclose(
        factored.inner(B * scale, A / scale, B, A), factored.norm(B, A) ** 2, rtol=1e-12
    )


def test_subnormal_float32_is_not_zero():
    A = np.full((1, 4), 1e-45, dtype=np.float32)
    A[0, 2:] = 0
    np.testing.assert_allclose(np.abs(row_frame(A).vectors()[:, 0]), np.sqrt([0.5, 0.5, 0, 0]), atol=1e-15)


def test_rows_of_very_different_sizes():
    A = np.diag([1e200, 1e100, 1.0])[:, [0, 1, 2]]
    assert row_frame(A).k == 1  # the others are below the resolution of float64 beside 1e200


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (5, 3), (0, 4)])
def test_zero_matrix_has_no_directions(shape):
    frame = row_frame(np.zeros(shape))
    assert frame.k == 0
    assert frame.S.shape == (0,)
    assert frame.vectors().shape == (shape[1], 0)
    assert frame.ties == ()
    assert phi_grid(overlap(frame, row_frame(np.eye(shape[1])))).shape == (0, shape[1])


@pytest.mark.parametrize(("B", "A"), [(0, 1), (1, 0), (0, 0)])
def test_untrained_adapters_span_nothing(B, A):
    left, right = product_frames(B * rng().standard_normal((9, 2)), A * rng().standard_normal((2, 7)))
    assert (left.k, right.k) == (0, 0)
    assert (left.d, right.d) == (9, 7)


def test_orthogonal_factors_of_a_product_that_vanishes():
    B, A = np.array([[1.0, -1.0], [2.0, -2.0]]), np.array([[1.0, 3.0], [1.0, 3.0]])
    assert product_frame(B, A).k == 0
    assert factored.norm(B, A) < 1e-14


def test_deficient_rank_is_cut():
    A = rng(0).standard_normal((6, 3)) @ rng(1).standard_normal((3, 40))
    frame = row_frame(A)
    assert frame.k == 3
    np.testing.assert_allclose(phi_grid(overlap(frame, frame))[2, 2], 1, atol=1e-13)
    assert product_frame(rng(2).standard_normal((50, 6)), A, side="left").k == 3


def test_dead_rows_are_cut():
    A = rng().standard_normal((4, 30))
    A[2] = 0
    assert row_frame(A).k == 3


def test_more_rows_than_dimensions():
    A = rng().standard_normal((9, 4))
    assert row_frame(A).k == 4
    np.testing.assert_allclose(phi(A, A)[3, :], [1, 1, 1, 1], atol=1e-13)
    U, S, Vh = factored.svd(rng(1).standard_normal((3, 9)), A)
    assert U.shape == (3, 3)
    assert Vh.shape == (3, 4)
    np.testing.assert_allclose(S, oracles.product_svd(rng(1).standard_normal((3, 9)), A)[1], rtol=1e-12)


@pytest.mark.parametrize("kappa", [1.5, 1e2, 1e3, 1e4, 1e6])
def test_factored_svd_is_the_dense_one(kappa):
    B, A = oracles.with_condition(8, 60, kappa, rng(0)).T, oracles.with_condition(8, 90, kappa, rng(1))
    U, S, Vh = factored.svd(B, A)
    _, S_dense, _ = oracles.product_svd(B, A)
    np.testing.assert_allclose(U * S @ Vh, B @ A, atol=1e-15)
    np.testing.assert_allclose(U.T @ U, np.eye(len(S)), atol=1e-11)
    np.testing.assert_allclose(Vh @ Vh.T, np.eye(len(S)), atol=1e-11)
    np.testing.assert_allclose(S, S_dense[: len(S)], atol=1e-15)
    np.testing.assert_allclose(factored.singular_values(B, A)[: len(S)], S, rtol=1e-9)
    np.testing.assert_allclose(factored.norm(B, A), np.linalg.norm(B @ A), rtol=1e-12)


def test_smallest_value_at_condition_one_million():
    # a float32 Gram matrix loses all of it, a float64 one the fifth digit, Householder QR nothing
    A = (np.logspace(0, -6, 16)[:, None]) * oracles.haar(1024, 16, rng(0)).T
    B = oracles.haar(1024, 16, rng(1)) @ oracles.haar(16, 16, rng(2))
    S = factored.singular_values(
        B @ np.linalg.inv(oracles.haar(16, 16, rng(3))), oracles.haar(16, 16, rng(3)) @ A
    )
    np.testing.assert_allclose(S, np.logspace(0, -6, 16), rtol=1e-9)


def test_inner_product_is_the_dense_one():
    B1, A1, B2, A2 = (
        rng(n).standard_normal(shape) for n, shape in enumerate([(9, 3), (3, 7), (9, 5), (5, 7)])
    )
    np.testing.assert_allclose(factored.inner(B1, A1, B2, A2), np.sum((B1 @ A1) * (B2 @ A2)), rtol=1e-12)
    assert factored.inner(0 * B1, A1, B2, A2) == 0


def test_ties_follow_the_stored_resolution():
    A = np.diag([2.0, 1.0 + 2.0**-23, 1.0, 0.5])
    assert row_frame(A).ties == ()
    assert row_frame(A, resolution=2.0**-23).ties == (2,)
    assert row_frame(np.eye(3)).ties == (1, 2)


def test_layout_in_memory_does_not_matter():
    B = rng().standard_normal((40, 6)).astype(np.float32)
    views = [B.T, np.ascontiguousarray(B.T), np.repeat(B.T, 2, axis=1)[:, ::2], np.asfortranarray(B.T)]
    for view in views:
        np.testing.assert_allclose(phi(view, B.T), phi(B.T, B.T), atol=1e-13)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_not_finite_is_refused(bad, dtype):
    A = rng().standard_normal((3, 8)).astype(dtype)
    A[1, 5] = bad
    B = np.ones((4, 3))
    for call in (
        row_frame,
        lambda A: product_frame(B, A),
        lambda A: factored.svd(B, A),
        lambda A: factored.norm(B, A),
        lambda A: factored.singular_values(B, A),
        lambda A: factored.inner(B, A, B, np.zeros((3, 8))),
    ):
        with pytest.raises(ValueRangeError, match=r"\(1, 5\)"):
            call(A)


def test_values_beyond_float64_are_refused():
    A = np.full((2, 100), 1e308)
    with pytest.raises(ValueRangeError, match=r"1\.8e308"):
        row_frame(A)
    with pytest.raises(ValueRangeError, match=r"1\.8e308"):
        factored.inner(A.T, A, A.T, A)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: row_frame(np.zeros(3)), r"Not a matrix: A has shape \(3,\)"),
        (lambda: row_frame(np.zeros((2, 2, 2))), r"Not a matrix: A has shape \(2, 2, 2\)"),
        (lambda: row_frame(np.eye(2) * 1j), "Not real numbers: A has dtype complex128"),
        (lambda: product_frame(np.ones((3, 2)), np.ones((3, 2))), r"shapes \(3, 2\) and \(3, 2\)"),
        (lambda: product_frame(np.ones((3, 2)), np.ones((2, 3)), side="top"), "Unknown side: 'top'"),
        (lambda: overlap(row_frame(np.eye(2)), row_frame(np.eye(3))), "different dimensions: 2 and 3"),
        (
            lambda: factored.inner(np.ones((3, 1)), np.ones((1, 3)), np.ones((4, 1)), np.ones((1, 3))),
            r"different shapes: \(3, 3\) and \(4, 3\)",
        ),
    ],
)
def test_shapes_that_do_not_fit(call, reason):
    with pytest.raises(ShapeError, match=reason):
        call()


def test_a_zero_factor_gives_zeros():
    B, A = np.zeros((9, 3)), rng().standard_normal((3, 7))
    assert factored.norm(B, A) == 0
    assert factored.singular_values(B, A).tolist() == [0, 0, 0]
    U, S, Vh = factored.svd(B, A)
    assert (U.shape, S.shape, Vh.shape) == ((9, 0), (0,), (0, 7))
