"""What a study trains."""

from __future__ import annotations

import pytest

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.study.plan import BUDGET, RANKS, planned, projections
from subspace.study.workers import command_of


def test_the_runs_of_a_study_and_of_a_full_one():
    assert [(run.rank, run.seed, run.weights) for run in planned().runs] == [
        (8, 0, "qv"),
        (64, 0, "qv"),
        (64, 1, "qv"),
    ]
    full = {run.name: run for run in planned(full=True).runs}
    assert len(full) == 12
    assert [full[name].rank for name in RANKS] == [1, 2, 4, 8, 64]
    assert {full[name].weights for name in BUDGET} == {"q", "k", "v", "o", "qk", "qv", "qkvo"}
    # one budget: as many adapted matrices times r in every run of table 5
    assert {full[name].rank * len(full[name].weights) for name in BUDGET} == {8}


def test_two_seeds_differ_in_start_and_data(tmp_path):
    plan = planned(steps=3)
    words = command_of(plan, plan.runs[2], tmp_path)
    for option in ("--seed", "--data-seed"):
        assert words[words.index(option) + 1] == "1"
    assert [words[n + 1] for n, word in enumerate(words) if word == "--targets"] == ["q_proj", "v_proj"]


def test_a_model_without_projections_of_their_own_is_said_to_be_one():
    with pytest.raises(InconclusiveError, match=r"layers of their own.*in gpt2, which has h\.0\.attn"):
        projections(["h.0.attn.c_attn", "h.0.attn.c_proj"], "gpt2")


def test_no_steps_are_no_study():
    with pytest.raises(ValueRangeError, match="steps must be at least 1: got 0"):
        planned(steps=0)
