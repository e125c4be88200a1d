"""Second moments with all of their eigenpairs or some, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from second_moments import covariance, moment

from subspace.geometry.second_moment import leading_pairs, nystrom


def test_products_with_all_eigenpairs_are_those_of_the_matrix():
    rng, C = np.random.default_rng(1), covariance(40)
    X, Y = rng.standard_normal((3, 40)), rng.standard_normal((5, 40))
    np.testing.assert_allclose(moment(C, 40).inner(X, Y), X @ C @ Y.T, atol=1e-12)
    assert moment(C, 40).rest == moment(C, 40).floor == 0
    assert moment(C, 40).effective_dimension == pytest.approx(np.trace(C) ** 2 / np.sum(C**2))
    assert moment(C, 40).decay == pytest.approx(1)


def test_with_some_eigenpairs_the_rest_is_flat_and_the_trace_kept():
    rng, C, k = np.random.default_rng(2), covariance(40), 6
    part = moment(C, k)
    values, Q = np.linalg.eigh(C)
    flat = (Q * np.r_[np.full(34, values[:34].mean()), values[34:]]) @ Q.T
    X, Y = rng.standard_normal((3, 40)), rng.standard_normal((5, 40))
    np.testing.assert_allclose(part.inner(X, Y), X @ flat @ Y.T, atol=1e-12)
    coordinates = part.coordinates(X)
    rows = coordinates.scaled(np.sqrt(part.values), np.sqrt(part.floor))
    np.testing.assert_allclose(rows @ rows.T, X @ flat @ X.T, atol=1e-12)
    np.testing.assert_allclose(np.trace(flat), part.trace)


def test_leading_pairs_of_a_large_matrix_are_those_of_lapack():
    C = covariance(1100, 0.7)
    values, vectors = leading_pairs(C, 20)
    np.testing.assert_allclose(values, np.arange(1, 21) ** -0.7, rtol=1e-6)
    np.testing.assert_allclose(C @ vectors[:, :5], vectors[:, :5] * values[:5], atol=1e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-12)
    assert np.array_equal(leading_pairs(np.zeros((1100, 1100)), 3)[0], np.zeros(3))


def test_a_sketch_lies_below_and_its_error_is_bounded():
    C = covariance(120, 1.5)
    omega = np.random.default_rng(3).standard_normal((120, 30))
    values, vectors = nystrom(C @ omega, omega, 30)
    assert (values <= np.arange(1, 31) ** -1.5 * (1 + 1e-9)).all()
    approximation = (vectors * values) @ vectors.T
    assert np.linalg.eigvalsh(C - approximation)[0] > -1e-9
    missed = np.trace(C) - values.sum()
    assert np.abs(np.linalg.eigvalsh(C - approximation)).sum() == pytest.approx(missed, rel=1e-6)
    assert np.array_equal(nystrom(np.zeros((5, 3)), omega[:5, :3], 2)[0], np.zeros(2))


def test_shares_of_the_mean():
    mean = np.array([3.0, 0.0])
    assert moment(np.diag([10.0, 2.0]), 2, mean).mean_share == pytest.approx(9 / 12)
    assert np.isnan(moment(np.zeros((2, 2)), 2).mean_share)
    assert np.isnan(moment(np.eye(2), 2).decay)
