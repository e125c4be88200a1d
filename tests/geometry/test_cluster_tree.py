"""Clusters: planted ones are found, random adapters have none, and the tree is that of SciPy on 1 - similarity."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from subspace.geometry.cluster_tree import cluster_tree, clusters, excess


def phi_of(spans):
    stack = np.array(spans)
    products = np.einsum("iad,jbd->ijab", stack, stack)
    return np.sum(products**2, axis=(2, 3)) / stack.shape[1]


def test_average_linkage_by_hand():
    S = [[1, 0.9, 0.5, 0.0], [0.9, 1, 0.3, 0.0], [0.5, 0.3, 1, 0.0], [0.0, 0.0, 0.0, 1]]
    tree = cluster_tree(S)
    np.testing.assert_allclose(tree.merges[:, 2], [0.1, 0.6, 1.0])
    assert clusters(tree, least=0.4) == [(0, 1, 2)]
    assert clusters(tree, least=0.41) == [(0, 1)]
    assert clusters(tree, least=0.95) == []


def test_unrelated_adapters_are_in_no_cluster():
    """phi over chance of random spans, and cosines of random updates in as few dimensions as modules have."""
    rng = np.random.default_rng(0)
    phi = phi_of([oracles.haar(64, 8, rng).T for _ in range(60)])
    assert clusters(cluster_tree(excess(phi, 8 / 64)), least=0.2) == []
    X = rng.standard_normal((200, 64 * 48))
    assert clusters(cluster_tree(np.corrcoef(X)), least=0.15) == []


def test_planted_clusters_are_found_whole():
    rng = np.random.default_rng(1)
    label = rng.permutation(np.repeat([0, 1, 2, -1], [12, 7, 3, 20]))
    common = rng.standard_normal((3, 2000))
    X = np.array([rng.standard_normal(2000) * 0.8 + (common[n] if n >= 0 else 0) for n in label])
    found = clusters(cluster_tree(np.corrcoef(X)), least=0.15)
    assert found == [tuple(np.flatnonzero(label == n)) for n in range(3)]


def test_leaves_of_a_cluster_stand_together():
    rng = np.random.default_rng(2)
    label = rng.permutation(np.repeat([0, 1, 2], 5))
    X = rng.standard_normal((3, 300))[label] + 0.5 * rng.standard_normal((15, 300))
    order = cluster_tree(np.corrcoef(X)).order
    assert sorted(order) == list(range(15))
    assert np.count_nonzero(np.diff(label[list(order)])) == 2


def test_adapters_without_a_module_in_common_are_never_joined():
    S = np.full((4, 4), np.nan)
    S[0, 1] = S[1, 0] = 0.9
    assert clusters(cluster_tree(S), least=0.15) == [(0, 1)]
    S[1, 2] = S[2, 1] = 0.2  # 0 and 2 have nothing in common, so 2 resembles the two by 0.1
    assert clusters(cluster_tree(S), least=0.15) == [(0, 1)]


def test_opposite_updates_and_rounding_are_no_trouble():
    S = np.array([[1, 1 + 1e-9, -1], [1 + 1e-9, 1, -1], [-1, -1, 1]])
    tree = cluster_tree(S)
    np.testing.assert_allclose(tree.merges[:, 2], [0, 2])


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_to_join(n):
    tree = cluster_tree(np.ones((n, n)))
    assert tree.order == tuple(range(n)) and clusters(tree, least=0.15) == []


def test_excess_is_zero_at_the_level_and_one_for_equal_spans():
    np.testing.assert_allclose(excess([0.1, 0.55, 1.0], 0.1), [0, 0.5, 1])
    assert np.isnan(excess(1.0, 1.0))


def test_more_leaves_than_are_put_in_the_best_order():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((501, 30))
    assert sorted(cluster_tree(np.corrcoef(X)).order) == list(range(501))
