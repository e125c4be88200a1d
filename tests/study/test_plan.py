"""What a study trains."""

from __future__ import annotations

import pytest
from tiny_models import tiny

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.study.plan import BUDGET, RANKS, planned, projections
from subspace.study.workers import command_of
from subspace.training import save_base


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


def test_a_model_whose_projections_are_not_known_is_said_to_be_one():
    with pytest.raises(
        InconclusiveError, match=r"layers of their own, or GPT-2's.*in falcon, which has h\.0"
    ):
        projections(["h.0.self_attention.query_key_value", "h.0.self_attention.dense"], "falcon")


def test_groups_of_gpt_2_are_adapted_apart(tmp_path):
    pytest.importorskip("transformers")
    plan = planned(str(tiny("gpt2", tmp_path / "model", n_embd=64)), full=True)
    assert plan.fused and plan.names.v == "c_attn[v]"
    runs = {run.name: run for run in plan.runs}
    assert "qkvo-r2" not in runs and plan.budget == BUDGET[:-1]
    words = command_of(plan, runs["r8"], tmp_path)
    assert words[words.index("--targets") + 1] == "c_attn" and words.count("--targets") == 1
    assert words[words.index("--groups") + 1] == "1,0,1" and "loralib" in words
    words = command_of(plan, runs["o-r8"], tmp_path)
    assert words[words.index("--targets") + 1] == "attn.c_proj" and "--groups" not in words


def test_a_model_too_narrow_for_the_rank_is_refused_before_anything_is_trained(tmp_path):
    pytest.importorskip("transformers")
    for kind, name in (("gpt2", r"c_attn\[q\]"), ("llama", "q_proj")):
        with pytest.raises(InconclusiveError, match=rf"dimension 64 or more.*got 32 in .*{name}"):
            planned(str(tiny(kind, tmp_path / kind)))


def test_a_c_attn_that_is_not_three_of_a_size_is_not_split(tmp_path):
    import numpy as np

    save_base(
        tmp_path / "model.safetensors",
        {"h.0.attn.c_attn.weight": np.ones((8, 16)), "h.0.attn.c_proj.weight": np.eye(8)},
    )
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InconclusiveError, match="or GPT-2's"):
        planned(str(tmp_path))


def test_no_steps_are_no_study():
    with pytest.raises(ValueRangeError, match="steps must be at least 1: got 0"):
        planned(steps=0)
