"""p-values by exchanging labels: known answers, floors, ties, sizes with dependent pairs."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from subspace.errors import ShapeError
from subspace.geometry.permutation import layers_p, reference_p


@pytest.mark.parametrize("L", [1, 2, 3, 5, 7])
def test_few_layers_are_enumerated(L):
    M = np.random.default_rng(L).standard_normal((L, L))
    T = [np.mean([M[k, pi[k]] for k in range(L)]) for pi in permutations(range(L))]
    p, floor = layers_p(M)
    assert p == pytest.approx(np.mean(np.array(T) >= np.trace(M) / L - 1e-12))
    assert floor == 1 / math.factorial(L) and layers_p(np.eye(L)) == (floor, floor)


def test_many_layers_are_drawn_by_the_seed():
    M = np.random.default_rng(0).standard_normal((12, 12))
    assert layers_p(M, seed=1) == layers_p(M, seed=1) != layers_p(M, seed=2)
    assert layers_p(np.eye(12)) == (0.001, 0.001)
    assert layers_p(-np.eye(12))[0] == 1


def test_equal_similarities_are_no_evidence():
    assert layers_p(np.full((5, 5), 0.3))[0] == 1
    rounded = 0.1 + 1e-17 * np.random.default_rng(0).standard_normal((12, 12))
    assert layers_p(rounded)[0] == 1
    assert reference_p(np.full((5, 5), 0.3))[:3] == (1, 1, 1)


def test_a_pair_among_references_by_hand():
    S = np.zeros((5, 5))
    S[0, 1:] = [0.5, 0.6, 0.1, 0.2]  # one reference is nearer to the first
    S[1, 2:] = [0.4, 0.3, 0.2]
    S[2, 3:], S[3, 4] = [0.5, 0.1], 0.1  # and one pair of references as near as the pair
    p = reference_p(S + S.T + np.diag([math.nan] * 5))
    assert p.second == pytest.approx(2 / 4) and p.first == pytest.approx(1 / 4)
    assert p.pairs == pytest.approx(3 / 10)
    assert (p.floor, p.floor_pairs) == (1 / 4, 1 / 10)


def test_without_references_nothing_can_be_said():
    assert reference_p(np.eye(2)) == (1, 1, 1, 1, 1)


def test_a_similarity_that_does_not_exist_is_no_p_value():
    M = np.eye(4)
    M[2, 3] = M[3, 2] = math.nan
    assert math.isnan(layers_p(M)[0])
    p = reference_p(M)
    assert p.second == p.first == 1 and math.isnan(p.pairs)


def test_what_is_not_a_table_of_similarities_is_refused():
    with pytest.raises(ShapeError, match=r"Not a square matrix of similarities: shape \(2, 3\)"):
        layers_p(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"No pair of adapters: similarities of shape \(1, 1\)"):
        reference_p(np.ones((1, 1)))


@pytest.mark.parametrize("L", [4, 6, 12])
def test_layers_that_mean_nothing_have_the_nominal_size(L):
    rng = np.random.default_rng(L)
    n = 2000
    p = [layers_p(np.add.outer(*rng.exponential(size=(2, L))) + rng.random((L, L)))[0] for _ in range(n)]
    level = np.floor(0.05 / layers_p(np.eye(L))[1] + 1e-9) * layers_p(np.eye(L))[1]
    assert np.mean(np.array(p) <= 0.05 + 1e-12) == pytest.approx(level, abs=4 * np.sqrt(0.05 / n))


@pytest.mark.parametrize("controls", [4, 19, 39])
def test_exchangeable_adapters_have_the_nominal_size_though_pairs_share_them(controls):
    rng = np.random.default_rng(controls)
    n, N = 3000, controls + 2
    found = []
    for _ in range(n):
        X = rng.standard_normal((N, 3)) * rng.lognormal(sigma=1, size=(N, 1))
        found.append(reference_p(np.abs(X @ X.T)))
    for kind in ("second", "first", "pairs"):
        p = np.array([getattr(one, kind) for one in found])
        floor = found[0].floor_pairs if kind == "pairs" else found[0].floor
        for level in (0.05, 0.2):
            steps = np.floor(level / floor + 1e-9) * floor
            assert np.mean(p <= level + 1e-12) == pytest.approx(steps, abs=4 * np.sqrt(level / n))
