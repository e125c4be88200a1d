"""Intruder dimensions: the exact route against the definition, the fast one against the exact one, the law."""

import intruder_cases as cases
import numpy as np
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.intruders import exact_intrusion
from subspace.geometry.large_products import Products, Summed
from subspace.geometry.streamed_intruders import streamed_intrusion

SHAPES = [(120, 120), (120, 170), (170, 120)]
BOTH = ("left", "right")


def settings(**changed):
    return {"k": 10, "epsilon": 0.5, "sides": BOTH, "up_to": 0.0} | changed


def case(kind, shape, strength, seed=0):
    rng = np.random.default_rng(seed)
    W = cases.base(kind, shape, rng)
    return W, *cases.update(W, strength, rng)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["bulk", "spikes", "power", "cluster"])
@pytest.mark.parametrize("strength", [0.3, 3.0])
def test_the_exact_route_is_the_definition(kind, shape, strength):
    W, B, A = case(kind, shape, strength)
    found = exact_intrusion(W, B, A, **settings())
    np.testing.assert_allclose(found.merged.S, np.linalg.svd(W + B @ A)[1][:10], rtol=1e-10)
    for side in BOTH:
        np.testing.assert_allclose(
            found.sides[side].cosines.most, cases.cosines(W, B @ A, 10, side), atol=1e-7
        )


@pytest.mark.parametrize("side", BOTH)
def test_match_and_captured_share_are_those_of_dense_decompositions(side):
    W, B, A = case("power", (90, 120), 0.8)
    (U0, S0, Vh0), (U, _, Vh) = (np.linalg.svd(M, full_matrices=False) for M in (W, W + B @ A))
    C = np.abs(U0.T @ U[:, :10] if side == "left" else Vh0 @ Vh[:10].T)
    found = exact_intrusion(W, B, A, **settings()).sides[side]
    assert found.cosines.match == tuple(C.argmax(axis=0) + 1)
    np.testing.assert_allclose(found.cosines.sigma, S0[C.argmax(axis=0)])
    np.testing.assert_allclose(found.captured, (C[:10] ** 2).sum(axis=0), atol=1e-7)


@pytest.mark.parametrize("kind", ["bulk", "spikes", "power"])
def test_planted_intruders_are_all_found(kind):
    """Three directions orthogonal to W's five leading ones, larger than all of W."""
    rng = np.random.default_rng(3)
    W = cases.base(kind, (150, 150), rng)
    U, _, Vh = np.linalg.svd(W)
    top = np.linalg.norm(W, 2)
    spread = cases.haar(145, 3, rng)
    B, A = U[:, 5:] @ spread * [3 * top, 2.5 * top, 2 * top], (Vh[5:].T @ cases.haar(145, 3, rng)).T
    for route in (exact_intrusion, streamed_intrusion):
        found = route(W, B, A, **settings()).sides["left"].cosines.most
        assert np.flatnonzero(found < 0.5).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [0.3, 3.0])
def test_the_fast_route_agrees_with_the_exact_one(kind, shape, strength):
    W, B, A = case(kind, shape, strength, seed=1)
    W = W.astype(np.float32)
    exact = exact_intrusion(W, B, A, **settings())
    fast = streamed_intrusion(W, B, A, others=np.arange(1, 10) / 10, **settings())
    np.testing.assert_allclose(fast.merged.S, exact.merged.S, rtol=1e-5)
    for side in BOTH:
        truth, found = exact.sides[side].cosines.most, fast.sides[side].cosines
        assert np.all(found.least <= truth + 2e-3) and np.all(truth <= found.most + 2e-3)
        np.testing.assert_array_equal(found.most < 0.5, truth < 0.5)
        if kind not in {"tied", "cluster"}:  # which of the tied vectors are the ten leading ones is arbitrary
            np.testing.assert_allclose(fast.sides[side].captured, exact.sides[side].captured, atol=1e-3)


def test_bounds_close_as_far_as_the_thresholds_ask():
    W, B, A = case("bulk", (200, 200), 3.0)
    for thresholds in ((0.5,), (0.5, 0.4, 0.3)):
        found = (
            streamed_intrusion(W, B, A, others=thresholds, **settings(sides=["left"])).sides["left"].cosines
        )
        truth = cases.cosines(W, B @ A, 10)
        for threshold in thresholds:
            undecided = (
                (found.least < threshold) & (threshold <= found.most) & (found.most - found.least > 0.01)
            )
            assert not undecided.any()
            np.testing.assert_array_equal(found.most < threshold, truth < threshold)


def test_any_basis_of_a_tied_span_has_one_answer():
    """A direction inside the span of tied singular vectors has cosine 1 with it, whichever of them LAPACK returns."""
    rng = np.random.default_rng(0)
    W = cases.base("tied", (120, 120), rng)
    nothing = np.zeros((120, 1)), np.zeros((1, 120))
    for route in (exact_intrusion, streamed_intrusion):
        found = route(W, *nothing, **settings(k=8))
        np.testing.assert_allclose(found.sides["left"].cosines.most, 1.0, atol=1e-5)
        assert found.theta == 0


def test_directions_of_the_null_space_are_nobodys():
    """W of rank 30: an update outside its span has no cosine with any of its vectors."""
    rng = np.random.default_rng(0)
    W = cases.base("deficient", (120, 120), rng)
    U, _, Vh = np.linalg.svd(W)
    B, A = 50 * U[:, 60:61], Vh[70:71]
    for route in (exact_intrusion, streamed_intrusion):
        found = route(W, B, A, **settings(k=3)).sides["left"].cosines.most
        assert found[0] < 1e-5 and np.all(found[1:] > 0.99)


@pytest.mark.parametrize("route", [exact_intrusion, streamed_intrusion])
@pytest.mark.parametrize("kind", ["bulk", "spikes", "power"])
@pytest.mark.parametrize("side", BOTH)
def test_the_first_scale_is_that_of_plain_bisection(route, kind, side):
    W, B, A = case(kind, (100, 120), 0.2)
    found = route(W, B, A, **settings(sides=[side], up_to=64.0)).sides[side].s_star
    assert found == pytest.approx(cases.first_scale(W, B @ A, 10, 0.5, 64.0, side), rel=0.02)


@pytest.mark.parametrize("route", [exact_intrusion, streamed_intrusion])
def test_an_update_that_is_too_small_has_no_first_scale(route):
    W, B, A = case("bulk", (100, 100), 1e-3)
    assert route(W, B, A, **settings(up_to=16.0)).sides["left"].s_star is None
    assert route(W, B, A, **settings(up_to=4000.0)).sides["left"].s_star > 300


@pytest.mark.parametrize("shape", [(400, 400), (300, 600), (600, 300)])
def test_the_threshold_of_noise_is_the_known_one(shape):
    """For independent entries of variance 1/m it is (n/m)^(1/4), with the edge 1 + sqrt(n/m)."""
    n, m = sorted(shape)
    bars = []
    for seed in range(6):
        W = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(m)
        B, A = np.ones((shape[0], 1)), np.ones((1, shape[1]))
        bars.append(exact_intrusion(W, B, A, **settings()).spectrum.threshold(3))
    assert np.mean(bars) == pytest.approx((n / m) ** 0.25, rel=0.1)


@pytest.mark.parametrize(("kind", "most"), [("bulk", 2.0), ("power", 5.0)])
def test_the_law_foretells_the_measured_scale(kind, most):
    """Within 2 over a bulk; where values lie far apart a direction stays with the nearest of them for longer."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        W = cases.base(kind, (200, 200), rng)
        B, A = cases.update(W, 0.1, rng, r=1)
        found = exact_intrusion(W, B, A, **settings(sides=["left"], up_to=200.0))
        law = found.spectrum.threshold(10) / found.theta
        assert 0.5 < found.sides["left"].s_star / law < most


def test_the_fast_route_has_the_laws_spectrum():
    for kind in ("bulk", "spikes", "power"):
        W, B, A = case(kind, (150, 200), 1.0)
        exact, fast = (
            route(W, B, A, **settings()).spectrum for route in (exact_intrusion, streamed_intrusion)
        )
        assert fast.threshold(10) == pytest.approx(exact.threshold(10), rel=0.1)
        assert fast.weights.sum() == pytest.approx(150)


@pytest.mark.parametrize(
    ("route", "scale"),
    [
        (streamed_intrusion, 1e-30),
        (streamed_intrusion, 1e30),
        (exact_intrusion, 1e-130),
        (exact_intrusion, 1e130),
    ],
)
def test_very_large_and_very_small_numbers_are_no_obstacle(route, scale):
    """Squares of the weights leave float32 on the fast route, and float64 on the exact one."""
    W, B, A = case("spikes", (100, 100), 2.0)
    plain = route(W, B, A, **settings(up_to=8.0))
    found = route(scale * W, scale * B, A, **settings(up_to=8.0))
    np.testing.assert_allclose(found.merged.S, scale * plain.merged.S, rtol=1e-5)
    assert found.theta == pytest.approx(scale * plain.theta)
    assert found.spectrum.threshold(10) == pytest.approx(scale * plain.spectrum.threshold(10), rel=0.03)
    one, other = found.sides["left"], plain.sides["left"]
    np.testing.assert_allclose(one.cosines.least, other.cosines.least, atol=1e-3)
    assert one.s_star == pytest.approx(other.s_star, rel=0.02)


@pytest.mark.parametrize("route", [exact_intrusion, streamed_intrusion])
def test_numbers_that_are_not_finite_are_refused(route):
    W, B, A = case("bulk", (100, 100), 1.0)
    for broken in ((np.where(W > 0.25, np.nan, W), B, A), (W, np.where(B > 0.3, np.inf, B), A)):
        with pytest.raises(ValueRangeError, match="Not a finite number"):
            route(*broken, **settings())


def test_products_are_those_of_the_sum():
    rng = np.random.default_rng(0)
    W, B, A = case("power", (70, 90), 1.0)
    X, Y = rng.standard_normal((90, 3)), rng.standard_normal((70, 2))
    M = W + B @ A
    for fine, tolerance in ((False, 1e-5), (True, 1e-12)):
        products = Products(W, B, A)
        np.testing.assert_allclose(products.apply(X, fine=fine), M @ X, atol=tolerance)
        np.testing.assert_allclose(products.adjoint(Y, fine=fine), M.T @ Y, atol=tolerance)
    np.testing.assert_allclose(Products(Summed(W, B @ A, 2.0)).apply(X, fine=True), (W + 2 * B @ A) @ X)
    with pytest.raises(ShapeError, match="does not fit W"):
        Products(W, B, A[:, 1:])
