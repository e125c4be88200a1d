"""The first direction of A beside the mean input, with answers that are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from subspace import load_adapter
from subspace.geometry.second_moment import SecondMoment
from subspace.study.mean_input import mean_input, read_inputs
from subspace.study.plan import planned

D = 12
E = np.eye(D)


def _adapter(A):
    return load_adapter({"layers.0.q.lora_A": A, "layers.0.q.lora_B": np.ones((D, len(A)))}, scale=1.0)


def _inputs(mean):
    moment = SecondMoment(9, mean, np.ones(1), E[:, :1], float(D))
    return SimpleNamespace(moment=lambda module: moment)


def test_a_direction_that_is_the_mean_alone_is_gone_without_it():
    # the mean in both, and below it a direction of each adapter's own
    found = mean_input(
        _inputs(2 * E[0]), _adapter(np.stack([3 * E[0], E[1]])), _adapter(np.stack([5 * E[0], E[2]]))
    )
    assert found.first == found.second == [pytest.approx(1)] and found.isotropic == [1 / D]
    assert found.phi_11 == [pytest.approx(1)] and found.without == [pytest.approx(0, abs=1e-12)]


def test_what_two_share_besides_the_mean_stays():
    found = mean_input(
        _inputs(E[0]), _adapter(np.stack([3 * E[0], E[1]])), _adapter(np.stack([5 * E[1], E[2]]))
    )
    assert found.first == [pytest.approx(1)] and found.second == [pytest.approx(0, abs=1e-12)]
    assert found.phi_11 == [pytest.approx(0, abs=1e-12)] and found.without == [pytest.approx(1)]


def test_without_a_mean_nothing_is_said():
    found = mean_input(_inputs(np.zeros(D)), _adapter(E[:2]), _adapter(E[:2]))
    assert found.first == []


@pytest.mark.slow
def test_the_inputs_of_a_plan_are_those_of_its_modules():
    plan = planned()
    found = read_inputs(plan)
    assert {row.module.rpartition(".")[2] for row in found} == set(plan.targets(plan.run("r8")))
