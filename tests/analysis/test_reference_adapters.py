"""A pair against adapters of other tasks: p-values by exchanging adapters, with their floors."""

from __future__ import annotations

import numpy as np
import pytest

import subspace
from subspace.analysis.reference_adapters import pairs_among

D, R = 48, 4


def _adapter(rng, lesson, strength=3.0):
    tensors = {}
    for n in range(2):
        weights = rng.standard_normal(R)
        A = rng.standard_normal((R, D)) / np.sqrt(D) + strength * np.outer(weights, lesson[n][0])
        B = 0.1 * rng.standard_normal((D, R)) + strength * np.outer(lesson[n][1], weights)
        tensors |= {f"l.{n}.q.lora_A.weight": A, f"l.{n}.q.lora_B.weight": B}
    return tensors


def _lesson(rng):
    return [[v / np.linalg.norm(v) for v in rng.standard_normal((2, D))] for _ in range(2)]


@pytest.fixture
def adapters():
    rng = np.random.default_rng(3)
    task = _lesson(rng)
    pair = [_adapter(rng, task) for _ in range(2)]
    return pair, [_adapter(rng, _lesson(rng)) for _ in range(4)]


def test_one_task_is_at_the_floor_of_every_measure(adapters):
    (one, other), controls = adapters
    found = subspace.compare(one, other, control=controls)
    assert [test.measure for test in found.references] == ["cosine", "phi_11_a", "phi_11_b"]
    for test in found.references:
        assert (test.p, test.p_floor) == (1 / 5, 1 / 5)
        assert test.p_permuted == test.p_permuted_floor == pytest.approx(1 / 15)
        assert len(test.first_with_controls) == len(test.second_with_controls) == 4
        assert test.value > max(test.first_with_controls + test.second_with_controls)
        assert test.null == "reference adapters"
    cosine = found.references[0]
    assert cosine.value == pytest.approx(found.cosine)
    assert cosine.first_with_controls[0] == pytest.approx(subspace.compare(one, controls[0]).cosine)
    assert "Against 4 reference adapters: cosine p = 0.2" in found.headline()
    assert "Only reference adapters" not in found.headline()


def test_two_tasks_are_not(adapters):
    (one, _), controls = adapters
    other, *rest = controls
    found = subspace.compare(one, other, control=rest).references[0]
    for with_controls, adapter in ((found.first_with_controls, one), (found.second_with_controls, other)):
        assert with_controls == pytest.approx([subspace.compare(adapter, each).cosine for each in rest])
    counts = [
        np.sum(np.array(c) >= found.value) for c in (found.first_with_controls, found.second_with_controls)
    ]
    assert found.p == pytest.approx((1 + max(counts)) / 4)
    # one of the pair among the references is as similar as can be
    assert subspace.compare(one, other, control=[one, *rest]).references[0].p >= 2 / 5


def test_progress_counts_modules_and_pairs(adapters):
    (one, other), controls = adapters
    steps = []
    subspace.compare(
        one, other, control=controls[:2], progress=lambda done, total: steps.append((done, total))
    )
    total = 2 + pairs_among(2)
    assert steps == [(n, total) for n in range(1, total + 1)]


def test_a_reference_of_other_layers_is_refused(adapters):
    (one, other), _ = adapters
    strange = {"conv.lora_A.weight": np.ones((2, D)), "conv.lora_B.weight": np.ones((D, 2))}
    with pytest.raises(
        subspace.InconclusiveError, match=r"No module in common between .*: a reference adapter has to"
    ):
        subspace.compare(one, other, control=[strange])


def test_where_no_measure_is_defined_for_all_pairs_a_note_says_so(adapters):
    (one, other), controls = adapters
    untrained = {key: M if ".lora_A" in key else 0 * M for key, M in controls[0].items()}
    found = subspace.compare(one, other, control=[untrained])
    assert found.references == () and found.cosine > 0
    assert any("No test against the reference adapters" in note for note in found.notes)
