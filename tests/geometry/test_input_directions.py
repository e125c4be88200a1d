"""Directions of an update among the inputs, against outputs that are computed token by token."""

from __future__ import annotations

import numpy as np
import pytest
from second_moments import covariance, moment

from subspace.geometry.input_directions import direction_inputs


def test_shares_are_those_of_outputs_of_tokens():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 12)) @ np.linalg.cholesky(covariance(12)).T + rng.standard_normal(12)
    U, S, Vh = np.linalg.svd(rng.standard_normal((9, 12)))
    D = (U[:, :3] * S[:3]) @ Vh[:3]
    known = moment(x.T @ x / 500, 12, x.mean(0))
    found = direction_inputs(Vh[:3].T, S[:3], known, top=2)
    outputs = [np.mean(np.sum((x @ (S[k] * np.outer(U[:, k], Vh[k])).T) ** 2, axis=1)) for k in range(3)]
    np.testing.assert_allclose(found.carried, np.array(outputs) / np.mean(np.sum((x @ D.T) ** 2, axis=1)))
    np.testing.assert_allclose(
        found.gain, np.mean((x @ Vh[:3].T) ** 2, axis=0) * 12 / np.mean(np.sum(x**2, axis=1))
    )
    mean = x.mean(0) / np.linalg.norm(x.mean(0))
    np.testing.assert_allclose(found.along_mean, (Vh[:3] @ mean) ** 2)
    top = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :2]
    np.testing.assert_allclose(found.along_top, (Vh[:3] @ top) ** 2)


def test_all_directions_together_are_given_the_average():
    known = moment(covariance(12, 2), 5)
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0]
    assert direction_inputs(Q, np.ones(12), known).gain.mean() == pytest.approx(1)
    np.testing.assert_allclose(known.through(Q), np.diag(known.inner(Q.T, Q.T)))


def test_what_does_not_exist_is_nan():
    nothing = direction_inputs(np.eye(3, 2), np.zeros(2), moment(np.zeros((3, 3)), 3))
    assert (
        np.isnan(nothing.along_mean).all()
        and np.isnan(nothing.gain).all()
        and np.isnan(nothing.carried).all()
    )
