"""Scores of directions and the rows of an embedding: against their dense definition, and their size by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.errors import ValueRangeError
from subspace.geometry import token_scores
from subspace.geometry.direction_shares import (
    block_shares,
    block_squares,
    largest_block,
    random_directions,
    span_shares,
)
from subspace.geometry.token_scores import Probe, probed


def _dense(E, V, gain, *, norm, centre, centre_after):
    """The definition, a matrix at a time in float64."""
    X = E.astype(np.float64)
    if centre:
        X = X - X.mean(axis=1, keepdims=True)
    if norm:
        X = X / np.sqrt(np.mean(X**2, axis=1, keepdims=True))
    Y = (X - X.mean(axis=0)) * gain
    if centre_after:
        Y = Y - Y.mean(axis=1, keepdims=True)
    return (Y / np.linalg.norm(Y, axis=1, keepdims=True) @ V).T


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("centre_after", [True, False])
def test_scores_are_those_of_the_definition_in_pieces_too(norm, centre, centre_after, monkeypatch):
    rng = np.random.default_rng(0)
    E = (rng.standard_normal((300, 24)) + 0.7).astype(np.float32)
    gain = rng.uniform(0.5, 2, 24)
    V, controls = random_directions(24, 3, seed=1), random_directions(24, 19, seed=2)
    monkeypatch.setattr(token_scores, "_PIECE", 64 * 24)
    (found,) = probed(E, [Probe(V, controls, gain, centre=centre_after)], norm=norm, centre=centre, most=5)
    scores = _dense(E, V, gain, norm=norm, centre=centre, centre_after=centre_after)
    order = np.argsort(-abs(scores), axis=1)[:, :5]
    np.testing.assert_array_equal(found.ids, order)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, axis=1), atol=2e-6)
    largest = abs(_dense(E, controls, gain, norm=norm, centre=centre, centre_after=centre_after)).max(axis=1)
    np.testing.assert_allclose(found.controls, largest, atol=2e-6)
    p = [(1 + np.sum(largest >= abs(score))) / 20 for score in found.scores[0]]
    np.testing.assert_allclose(found.p(0), p)


def test_rows_of_zeros_have_no_score_and_damage_is_an_error():
    E = np.vstack([np.zeros((5, 8)), np.random.default_rng(3).standard_normal((40, 8))])
    probe = Probe(random_directions(8, 2, seed=0), random_directions(8, 5, seed=1), np.ones(8))
    (found,) = probed(E, [probe], norm=True, most=40)
    assert (found.ids >= 5).all()
    (alone,) = probed(E[5:], [probe], norm=True, most=40)
    np.testing.assert_allclose(found.scores, alone.scores, atol=1e-6)
    E[7, 1] = np.nan
    with pytest.raises(ValueRangeError, match="the embedding"):
        probed(E, [probe])


def test_what_all_rows_have_in_common_names_none():
    rng = np.random.default_rng(4)
    common = random_directions(64, 1, seed=9)
    E = 5 * common.T + rng.standard_normal((500, 64))
    (found,) = probed(E, [Probe(common, random_directions(64, 199, seed=5), np.ones(64))], norm=True)
    assert found.p(0)[0] > 0.05 and abs(found.scores[0, 0]) < 0.6


def test_random_directions_reach_the_level_as_often_as_it_says():
    rng = np.random.default_rng(6)
    E = rng.standard_normal((400, 4)) @ rng.standard_normal((4, 32)) + rng.standard_normal((400, 32))
    gain = rng.uniform(0.2, 3, 32)
    (found,) = probed(
        E, [Probe(random_directions(32, 1000, seed=7), random_directions(32, 199, seed=8), gain)], norm=True
    )
    p = np.array([found.p(n)[0] for n in range(1000)])
    assert p.min() >= 1 / 200 and 0.02 < np.mean(p <= 0.05) < 0.085 and 0.15 < np.mean(p <= 0.2) < 0.26


def test_blocks_add_up_and_the_largest_of_random_ones_is_that_of_draws():
    rng = np.random.default_rng(10)
    U, V = (np.linalg.qr(rng.standard_normal((d, 5)))[0] for d in (24, 18))
    S = np.arange(5, 0, -1.0)
    blocks = [(0, 8), (8, 16), (16, 24)]
    M = (U * S) @ V.T
    squares = [np.sum(M[start:stop] ** 2) for start, stop in blocks]
    np.testing.assert_allclose(block_squares(U, S, blocks), squares)
    np.testing.assert_allclose(block_shares(U, blocks).sum(axis=0), 1)
    drawn = block_shares(random_directions(24, 20000, seed=11), blocks).max(axis=0)
    law = largest_block(3, 8)
    np.testing.assert_allclose(
        np.quantile(drawn, [0.1, 0.5, 0.95]), np.quantile(law, [0.1, 0.5, 0.95]), atol=0.01
    )
    np.testing.assert_allclose(span_shares(V, V[:, :2]), [1, 1, 0, 0, 0], atol=1e-12)
