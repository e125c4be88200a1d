"""What a study trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import tiny

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.study.plan import Plan, Recipe, planned
from subspace.study.projections import Projections, projections
from subspace.study.runs import BUDGET, RANKS
from subspace.study.workers import job_of
from subspace.training import Job, save_base


def test_the_runs_of_a_study_and_of_a_full_one():
    runs = planned().runs
    assert [(run.name, run.rank, run.text) for run in runs if not run.barely] == [
        ("r8", 8, ""),
        ("r64", 64, ""),
        ("r64-seed1", 64, ""),
        ("scrambled-r64", 64, "scrambled"),
        ("scrambled-r8", 8, "scrambled"),
    ]
    # the barely trained ones begin as the three that they stand beside
    assert [(run.rank, run.seed, run.text) for run in runs if run.barely] == [
        (8, 0, ""),
        (64, 0, ""),
        (64, 1, ""),
    ]
    # two adapters that are compared never have one start and one order of the data, but for the paper's first two
    assert len({run.seed for run in runs if not run.barely}) == 4
    full = {run.name: run for run in planned(full=True).runs}
    assert set(full) - {run.name for run in runs} >= {"words-r64", "uniform-r64", "r4", "qkvo-r2"}
    assert [full[name].rank for name in RANKS] == [1, 2, 4, 8, 64]
    assert {full[name].weights for name in BUDGET} == {"q", "k", "v", "o", "qk", "qv", "qkvo"}
    # one budget: as many adapted matrices times r in every run of table 5
    assert {full[name].rank * len(full[name].weights) for name in BUDGET} == {8}


def test_two_seeds_differ_in_start_and_data():
    plan = planned(steps=3)
    job = job_of(plan, plan.runs[2], Path("study"))
    assert (job.method.seed, job.recipe.seed, job.recipe.data_seed) == (1, 1, 1)
    assert job.targets == ("q_proj", "v_proj") and job.format == "peft"
    assert (job.threads, job.accounts, job.recipe.steps) == (1, False, 3)


def test_a_control_is_trained_on_a_control_of_the_same_data():
    for data, scrambled in ((None, "scrambled"), ("a.txt", "scrambled:a.txt")):
        plan = planned(data=data, steps=50)
        job = job_of(plan, plan.run("scrambled-r8"), Path("study"))
        assert (job.data, job.recipe.batch, job.recipe.held_out) == (scrambled, plan.recipe.batch // 2, 0.0)
        barely = job_of(plan, plan.run("barely-r8"), Path("study"))
        assert (barely.data, barely.recipe.steps, barely.recipe.held_out) == (data, 4, 0.0)
    full = planned(full=True)
    if full.headers:
        assert job_of(full, full.run("headers-r64"), Path("study")).data == str(Path("study/c-headers.txt"))
    assert not planned(data="a.txt", full=True).headers


def test_a_model_whose_projections_are_not_known_is_said_to_be_one():
    with pytest.raises(
        InconclusiveError,
        match=r"The projections of falcon are not known: .*layers of their own, or a GPT-2.* it has h\.0",
    ):
        projections(["h.0.self_attention.query_key_value", "h.0.self_attention.dense"], "falcon")


def test_groups_of_gpt_2_are_adapted_apart(tmp_path):
    pytest.importorskip("transformers")
    plan = planned(str(tiny("gpt2", tmp_path / "model", n_embd=64)), full=True)
    assert plan.fused and plan.names.v == "c_attn[v]"
    runs = {run.name: run for run in plan.runs}
    assert "qkvo-r2" not in runs and plan.budget == BUDGET[:-1]
    job = job_of(plan, runs["r8"], tmp_path)
    assert (job.targets, job.method.groups, job.format) == (("c_attn",), (True, False, True), "loralib")
    job = job_of(plan, runs["o-r8"], tmp_path)
    assert (job.targets, job.method.groups, job.format) == (("attn.c_proj",), None, "peft")


@pytest.mark.parametrize("fused", [False, True])
def test_the_command_that_is_shown_is_the_job_that_was_trained(tmp_path, fused):
    from subspace.cli.commands.train import command
    from subspace.cli.commands.train import job_of as job_of_words
    from subspace.report.commands import train_words

    names = ("c_attn[q]", "c_attn[k]", "c_attn[v]", "attn.c_proj") if fused else ("q", "k", "v", "o")
    plan = Plan("gpt2", "text.txt", Recipe(7), Projections(*names), full=True, headers=True)
    for run in plan.runs:
        job = job_of(plan, run, tmp_path)
        words = [*train_words(job, tmp_path / run.name)][1:]
        assert job_of_words(command.make_context("train", words)) == job
        assert Job.from_document(json.loads(json.dumps(job.document()))) == job


def test_a_model_too_narrow_for_the_rank_is_refused_before_anything_is_trained(tmp_path):
    pytest.importorskip("transformers")
    for kind, name in (("gpt2", r"c_attn\[q\]"), ("llama", "q_proj")):
        with pytest.raises(
            InconclusiveError, match=rf"too narrow: .*{name} has dimension 32, and the study trains r = 64"
        ):
            planned(str(tiny(kind, tmp_path / kind)))


def test_a_c_attn_that_is_not_three_of_a_size_is_not_split(tmp_path):
    import numpy as np

    save_base(
        tmp_path / "model.safetensors",
        {"h.0.attn.c_attn.weight": np.ones((8, 16)), "h.0.attn.c_proj.weight": np.eye(8)},
    )
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InconclusiveError, match="or a GPT-2"):
        planned(str(tmp_path))


def test_no_steps_are_no_study():
    with pytest.raises(ValueRangeError, match="Invalid `steps` 0: it must be at least 1"):
        planned(steps=0)
