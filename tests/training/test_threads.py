"""How many threads a step is given."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from subspace.training import Recipe, threads


class Square:
    """A task whose loss is of the weights alone."""

    def loss(self, model, step):
        return model(torch.ones(2, 8)).square().mean()


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)


@pytest.mark.parametrize(("both", "expected"), [(0.5, 2), (0.8, 2), (0.9, 1), (3.0, 1)])
def test_all_cores_where_they_are_clearly_faster(monkeypatch, two_cores, both, expected):
    monkeypatch.setattr(threads, "_SMALL", 0)
    monkeypatch.setattr(threads, "_seconds", lambda model, task, recipe, n: {1: 1.0, 2: both}[n])
    before = torch.get_num_threads()
    assert threads.faster_threads(nn.Linear(8, 8), Square(), Recipe()) == expected
    assert torch.get_num_threads() == before


def test_what_is_measured_leaves_the_model_and_the_threads_as_they_were(monkeypatch, two_cores):
    monkeypatch.setattr(threads, "_SMALL", 0)
    model, before = nn.Linear(8, 8), torch.get_num_threads()
    weight = model.weight.clone()
    assert threads.faster_threads(model, Square(), Recipe()) in (1, 2)
    assert torch.get_num_threads() == before
    assert torch.equal(model.weight, weight) and model.weight.grad is None


@pytest.mark.parametrize(("d", "measured"), [(64, False), (1024, True)])
def test_only_larger_models_are_measured(monkeypatch, two_cores, d, measured):
    asked = []

    def seconds(model, task, recipe, n):
        asked.append(n)
        return 1.0

    monkeypatch.setattr(threads, "_seconds", seconds)
    threads.faster_threads(nn.Linear(d, d, bias=False), Square(), Recipe(batch=16, length=128))
    assert bool(asked) is measured
