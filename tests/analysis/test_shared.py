"""Where the test of shared directions cannot see any, and says so."""

from __future__ import annotations

import numpy as np
import pytest

from subspace import compare
from subspace.geometry.chance import largest_root_p


def _adapter(d, r, seed, shared):
    rng = np.random.default_rng(seed)
    v = np.random.default_rng(99).standard_normal(d) / np.sqrt(d)
    A = rng.standard_normal((r, d)) / np.sqrt(d) + shared * np.outer(rng.standard_normal(r), v)
    return {
        "base_model.model.m.lora_A.weight": A,
        "base_model.model.m.lora_B.weight": rng.standard_normal((d, r)),
    }


@pytest.mark.parametrize("d", [24, 30, 32, 34])
def test_spans_that_nearly_fill_the_space_are_said_to_tell_nothing(d):
    found = compare(_adapter(d, 16, 1, 3.0), _adapter(d, 16, 2, 3.0))
    (row,) = found.modules
    assert row.phi_11 > 0.95 and row.shared_dim == 0
    assert "blind" in row.flags
    assert any("a shared dimension of 0 says nothing there" in note for note in found.notes)


@pytest.mark.parametrize("shared", [0.0, 3.0])
def test_where_there_is_room_the_test_sees_and_nothing_is_said(shared):
    found = compare(_adapter(128, 16, 1, shared), _adapter(128, 16, 2, shared))
    (row,) = found.modules
    assert row.shared_dim == bool(shared)
    assert "blind" not in row.flags and not any("says nothing" in note for note in found.notes)


def test_a_strict_level_needs_more_room():
    pair = _adapter(20, 4, 1, 0.0), _adapter(20, 4, 2, 0.0)
    p = largest_root_p(0.99, 4, 4, 20)
    for level, blind in ((p / 2, True), (p * 2, False)):
        (row,) = compare(*pair, level=level).modules
        assert ("blind" in row.flags) is blind


def test_a_span_that_is_the_whole_space_is_not_tested_at_all():
    (row,) = compare(_adapter(8, 8, 1, 0.0), _adapter(8, 4, 2, 0.0)).modules
    assert row.shared_dim is None and "blind" not in row.flags
