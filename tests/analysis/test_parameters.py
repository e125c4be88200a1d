"""The number of parameters is what the file holds for its updates, however they are composed."""

from __future__ import annotations

import numpy as np

import subspace

_RNG = np.random.default_rng(0)


def _random(*shape):
    return _RNG.standard_normal(shape)


def test_pairs_count_their_factors_and_nothing_else():
    found = subspace.inspect(
        {"q.lora_A": _random(2, 6), "q.lora_B": _random(5, 2), "head.weight": _random(3, 5)}
    )
    assert found.totals()["parameters"] == 2 * (6 + 5)


def test_a_composed_update_counts_what_is_stored():
    blocks = {"lora_x.lokr_w1": _random(3, 3), "lora_x.lokr_w2": _random(4, 4), "lora_x.alpha": np.array(1.0)}
    assert subspace.inspect(blocks).totals()["parameters"] == 9 + 16
