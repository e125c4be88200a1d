"""The Frobenius norm: against exact arithmetic, at the ends of the range, and for what is not finite."""

import math

import numpy as np
import pytest

from subspace.geometry.frobenius import frobenius


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("shape", [(3,), (4, 5), (1, 1), (2, 3, 4)])
def test_norm(scale, shape):
    M = np.random.default_rng(0).standard_normal(shape)
    assert frobenius(M * scale) == pytest.approx(math.hypot(*M.ravel()) * scale, rel=1e-14)


def test_ends():
    assert frobenius([]) == frobenius(np.zeros((0, 3))) == frobenius([0.0, -0.0]) == 0
    assert frobenius([1.7e308, 1.7e308]) == frobenius([np.inf, 1.0]) == math.inf
    assert math.isnan(frobenius([np.nan, 1.0]))
