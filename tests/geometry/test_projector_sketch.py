import numpy as np
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.projector_sketch import projector_sketch, sketch_directions


def _span(rng, k, d):
    return np.linalg.qr(rng.standard_normal((d, k)))[0].T


@pytest.mark.parametrize(("k", "other_k", "shared"), [(4, 4, 0), (4, 4, 2), (3, 6, 3), (8, 8, 8)])
def test_inner_products_have_the_mean_and_the_scatter_that_are_stated(k, other_k, shared):
    rng, d, m = np.random.default_rng(0), 40, 64
    V, W = _span(rng, k, d), _span(rng, other_k, d)
    if shared:
        W = np.linalg.qr(np.vstack([V[:shared], W[shared:]]).T)[0].T
    expected = np.linalg.norm(V @ W.T) ** 2 - k * other_k / d
    found = np.array([
        projector_sketch(V, G) @ projector_sketch(W, G)
        for G in (sketch_directions(d, m, seed=seed) for seed in range(2000))
    ])  # fmt: skip
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - expected) < 4 * error
    assert found.std() < 3 * np.sqrt(k * other_k / m)


def test_a_sketch_depends_on_the_span_alone():
    rng = np.random.default_rng(1)
    V, G = _span(rng, 5, 30), sketch_directions(30, 16, seed=3)
    turned = np.linalg.qr(rng.standard_normal((5, 5)))[0] @ V
    np.testing.assert_allclose(projector_sketch(turned, G), projector_sketch(V, G), atol=1e-5)
    np.testing.assert_array_equal(G, sketch_directions(30, 16, seed=3))
    assert not np.array_equal(G, sketch_directions(30, 16, seed=4))
    assert not projector_sketch(np.zeros((0, 30)), G).any()
    np.testing.assert_allclose(
        projector_sketch(np.eye(30), G), 0, atol=1e-5
    )  # the whole space is above no chance


def test_wrong_sizes():
    with pytest.raises(ShapeError, match="different dimensions: 3 and 4"):
        projector_sketch(np.eye(3), sketch_directions(4, 2, seed=0))
    with pytest.raises(ValueRangeError, match="Too small a sketch"):
        sketch_directions(4, 0, seed=0)
