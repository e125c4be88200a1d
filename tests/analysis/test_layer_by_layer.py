"""phi of layers against layers: against dense projectors, of a pair and in the mean over a library."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from subspace.analysis.collection import Member
from subspace.analysis.layer_by_layer import layer_by_layer
from subspace.geometry.canonical import canonical


class Library:
    """Adapters in memory: (B, A) by module."""

    def __init__(self, adapters):
        self._adapters = adapters
        self.members = [Member(str(n)) for n in range(len(adapters))]
        self.modules = sorted({module for each in adapters for module in each})

    def holders(self, module):
        return [n for n, each in enumerate(self._adapters) if module in each]

    def forms(self, module, numbers):
        return [canonical(*self._adapters[n][module]) for n in numbers]


def library(n, layers=3, *, ranks=(2, 3), seed=0):
    rng = np.random.default_rng(seed)
    modules = [f"h.{layer}.{kind}" for layer in range(layers) for kind in ("q", "up")] + ["head"]
    return Library(
        [
            {m: (rng.standard_normal((9, r)), rng.standard_normal((r, 12))) for m in modules}
            for r in (ranks[k % len(ranks)] for k in range(n))
        ]
    )


def phi(first, second):
    """Of the column spaces, by dense projectors."""
    P, Q = (M @ np.linalg.pinv(M) for M in (first, second))
    return np.trace(P @ Q) / min(first.shape[1], second.shape[1])


@pytest.mark.parametrize("side", ["a", "b", "left", "right"])
def test_of_a_pair(side):
    found = layer_by_layer(library(3), side=side, pair=(2, 1))
    adapters = library(3)._adapters
    take = (lambda BA: BA[1].T) if side in ("a", "right") else (lambda BA: BA[0])
    assert sorted(found) == ["h.*.q", "h.*.up"]
    for kind, each in found.items():
        name = kind.rpartition(".")[2]
        expected = [
            [phi(take(adapters[2][f"h.{row}.{name}"]), take(adapters[1][f"h.{k}.{name}"])) for k in range(3)]
            for row in range(3)
        ]
        np.testing.assert_allclose(each.phi, expected, atol=1e-12)
        assert each.layers == (0, 1, 2)
        assert each.chance == pytest.approx(3 / (12 if side in ("a", "right") else 9))


def test_in_the_mean_over_all_pairs_of_a_library():
    adapters = library(5)._adapters
    found = layer_by_layer(library(5))["h.*.q"]
    expected = np.mean(
        [
            [
                [phi(adapters[i][f"h.{row}.q"][0], adapters[j][f"h.{k}.q"][0]) for k in range(3)]
                for row in range(3)
            ]
            for i, j in permutations(range(5), 2)
        ],
        axis=0,
    )
    np.testing.assert_allclose(found.phi, expected, atol=1e-12)
    np.testing.assert_array_equal(found.phi, found.phi.T)


def test_layers_that_no_pair_has_are_undefined():
    adapters = library(2)._adapters
    del adapters[1]["h.2.q"]
    del adapters[0]["h.1.q"]
    found = layer_by_layer(Library(adapters), pair=(0, 1))["h.*.q"]
    assert np.isnan(found.phi[1]).all() and np.isnan(found.phi[:, 2]).all()
    assert np.isfinite(found.phi[0, :2]).all()


def test_other_numbers_in_a_name_make_another_kind_and_shapes_that_differ_none():
    rng = np.random.default_rng(1)

    def factors(d):
        return rng.standard_normal((d, 2)), rng.standard_normal((2, 8))

    sizes = {
        "up.0.attn.1.q": 8,
        "up.1.attn.1.q": 8,
        "up.0.attn.2.q": 8,
        "up.1.attn.2.q": 16,
        "up.2.attn.3.q": 8,
    }
    found = layer_by_layer(Library([{m: factors(d) for m, d in sizes.items()} for _ in range(2)]))
    assert list(found) == ["up.*.attn.1.q"]


def test_of_many_members_ten_stand_for_all():
    asked = []
    many = library(40, layers=2)
    forms = many.forms
    many.forms = lambda module, numbers: asked.append(tuple(numbers)) or forms(module, numbers)
    assert layer_by_layer(many)
    assert {len(numbers) for numbers in asked} == {10} and asked[0][0] == 0 and asked[0][-1] == 39
