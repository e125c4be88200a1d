"""Bounds of the weight of one eigenvector, by Lanczos alone; triplets and merged frames against dense ones."""

import intruder_cases as cases
import numpy as np
import pytest

from subspace.errors import ValueRangeError
from subspace.geometry.first_scale import first_scale
from subspace.geometry.intruder_law import d_transform
from subspace.geometry.merged_frame import framed
from subspace.geometry.spectral_measure import Lanczos, christoffel, lanczos
from subspace.geometry.triplets import triplets


def run(N, y, steps):
    space = Lanczos(y, np.linalg.norm(N, 2))
    lanczos(lambda X: N @ X, [space], np.empty((len(y), 0)), steps=steps, done=lambda _: False)
    return space


@pytest.mark.parametrize("kind", ["bulk", "power", "deficient"])
@pytest.mark.parametrize("planted", [0.0, 0.6])
def test_the_largest_weight_lies_between_the_bounds_at_every_step(kind, planted):
    rng = np.random.default_rng(0)
    W = cases.base(kind, (120, 120), rng)
    U, S, _ = np.linalg.svd(W)
    y = planted * U[:, 17] + rng.standard_normal(120) / np.sqrt(120)
    truth = ((U.T @ y) ** 2)[1e-6 * S[0] < S].max()
    widths = []
    for steps in (4, 10, 25, 60, 120):
        bounds = run(W @ W.T, y, steps).bounds()
        assert bounds.least <= truth * (1 + 1e-6) and bounds.most * (1 + 1e-6) >= truth
        widths.append(bounds.most - bounds.least)
    assert widths[-1] < 1e-8 and widths[0] > widths[2]


def test_the_christoffel_function_is_the_largest_weight_that_the_moments_allow():
    """Against its definition, one over the sum of squares of the orthonormal polynomials."""
    rng = np.random.default_rng(1)
    N = np.diag(np.linspace(0.1, 2, 40))
    y = rng.standard_normal(40)
    space = run(N, y / np.linalg.norm(y), 6)
    nodes, first, last = space.measure()
    for x in (0.05, 0.33, 1.0, 1.97, 2.4):
        values = [1.0]
        vandermonde = np.vander(nodes, 6, increasing=True)
        Q, R = np.linalg.qr(np.abs(first)[:, None] * vandermonde)
        values = np.linalg.solve(R.T, np.vander([x], 6, increasing=True)[0])
        assert christoffel(np.array([x]), nodes, first, last)[0] == pytest.approx(
            1 / np.sum(values**2), rel=1e-6
        )
    np.testing.assert_allclose(christoffel(nodes, nodes, first, last), first**2, rtol=1e-8)
    assert Q.shape == (6, 6)


def test_recurrences_that_go_together_are_those_that_go_alone():
    rng = np.random.default_rng(2)
    W = rng.standard_normal((50, 50))
    N = W @ W.T
    starts = rng.standard_normal((3, 50))
    together = [Lanczos(y, np.linalg.norm(N, 2)) for y in starts]
    lanczos(lambda X: N @ X, together, np.empty((50, 0)), steps=12, done=lambda n: n == 1)
    for n, (y, space) in enumerate(zip(starts, together, strict=True)):
        alone = run(N, y, 8 if n == 1 else 12)
        np.testing.assert_allclose(space.measure()[0], alone.measure()[0], rtol=1e-10)


@pytest.mark.parametrize("shape", [(80, 60), (60, 80)])
@pytest.mark.parametrize("kind", ["bulk", "power", "cluster"])
def test_triplets_are_those_of_a_dense_decomposition(shape, kind):
    rng = np.random.default_rng(3)
    M = cases.base(kind, shape, rng)
    U, S, Vh = np.linalg.svd(M, full_matrices=False)
    found = triplets(lambda X: M @ X, lambda Y: M.T @ Y, rng.standard_normal((shape[1], 30)), 8).first(8)
    np.testing.assert_allclose(found.S, S[:8], rtol=1e-9)
    np.testing.assert_allclose(np.abs((found.U * U[:, :8]).sum(0)), 1, atol=1e-6)
    np.testing.assert_allclose(np.abs((found.V * Vh[:8].T).sum(0)), 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(150, 150), (150, 100), (100, 150)])
@pytest.mark.parametrize("r", [1, 5, 40])
def test_a_merged_frame_is_the_merged_matrix(shape, r):
    rng = np.random.default_rng(4)
    W = cases.base("spikes", shape, rng)
    B, A = rng.standard_normal((shape[0], r)) / 5, rng.standard_normal((r, shape[1])) / 5
    U, S, Vh = np.linalg.svd(W, full_matrices=False)
    frame = framed(U, S, Vh.T, B, A)
    for s in (0.0, 0.1, 1.0, 30.0):
        found = frame.merged(s, 7)
        left, values, right = np.linalg.svd(W + s * B @ A)
        np.testing.assert_allclose(found.S, values[:7], rtol=1e-9)
        np.testing.assert_allclose(np.abs(((frame.left @ found.U) * left[:, :7]).sum(0)), 1, atol=1e-7)
        np.testing.assert_allclose(np.abs(((frame.right @ found.V) * right[:7].T).sum(0)), 1, atol=1e-7)


@pytest.mark.parametrize("truth", [0.003, 0.9, 1.0, 60.0])
def test_a_first_scale_is_found_from_either_side(truth):
    asked = []

    def happens(s):
        asked.append(s)
        return s >= truth

    assert first_scale(happens, least=0.5, most=64.0) == pytest.approx(truth, rel=0.01)
    assert len(asked) < 30
    assert first_scale(lambda s: s > 100, least=0.5, most=64.0) is None


def test_the_d_transform_needs_a_point_above_the_spectrum():
    with pytest.raises(ValueRangeError, match="above all values only"):
        d_transform(1.0, np.array([1.0]), np.ones(1), n=1, m=1)
