"""The monotone fit is the best monotone function in squared error."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from subspace.errors import ShapeError
from subspace.geometry.monotone_fit import monotone_fit


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_monotone_function_is_nearer(seed, falling):
    rng = np.random.default_rng(seed)
    x = rng.permutation(15).astype(float)
    y = (-x if falling else x) / 4 + rng.standard_normal(15)
    # a level and steps of one sign, by another solver
    order = np.argsort(x)
    steps = np.tril(np.ones((15, 15)))
    sign = -1 if falling else 1
    steps[:, 1:] *= sign
    free = np.full(15, np.inf)
    best = lsq_linear(steps, y[order], bounds=(np.r_[-np.inf, np.zeros(14)], free), tol=1e-12)
    np.testing.assert_allclose(monotone_fit(x, y, falling=falling)(x[order]), steps @ best.x, atol=1e-5)


def test_equal_places_have_one_value_and_the_ends_are_flat():
    fit = monotone_fit([1, 1, 2], [0.0, 2.0, 5.0])
    np.testing.assert_allclose(fit([-9, 1, 1.5, 2, 9]), [1, 1, 3, 5, 5])
    np.testing.assert_allclose(monotone_fit([1, 1], [0.0, 2.0])([7]), [1])


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ShapeError, match="Not two rows of as many numbers"):
        monotone_fit([1, 2], [1.0])
