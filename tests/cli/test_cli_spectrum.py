"""``subspace spectrum``: the table, the contract of its JSON, and the files that it writes."""

from __future__ import annotations

import csv
import io
import json

import contract
import pytest


def test_the_table_says_what_is_needed_and_advised(run, made):
    told = run("spectrum", made / "first")
    assert (told.code, told.err) == (0, "")
    header, *lines = told.out.splitlines()
    assert header.split() == (
        "module r norm_delta_W rank stable_rank entropy_rank participation energy_95 knee gavish_donoho above_random "
        "advised_rank flags"
    ).split()  # fmt: skip
    assert len([line for line in lines if line.startswith("model.layers.")]) == 6
    assert "for 95 % of ||delta_W||^2" in told.out and "by the rule energy 0.95" in told.out


def test_json_follows_the_contract_with_a_base(run, made):
    told = run("spectrum", made / "first", "--base", made / "base.safetensors", "--json")
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, contract.SPECTRUM)
    assert found["evaluated"] is None and found["base"].endswith("base.safetensors")
    assert all(module["sigma_over_W"] > 0 and module["W_index"] == 4 for module in found["modules"])


def test_csv_and_the_choice_of_modules(run, made):
    told = run("spectrum", made / "first", "--modules", "*.q_proj", "--layers", "0,2", "--csv")
    rows = list(csv.DictReader(io.StringIO(told.out)))
    assert [row["module"].split(".")[2] for row in rows] == ["0", "2"]
    assert all(int(row["energy_rank_0.9"]) <= int(row["energy_rank_0.99"]) for row in rows)


def test_files_of_ranks_are_written_once(run, made, tmp_path):
    ranks, config = tmp_path / "ranks.json", tmp_path / "config.json"
    words = ("spectrum", made / "first", "--ranks-out", ranks, "--config-out", config)
    told = run(*words)
    assert told.code == 0 and told.err == f"wrote {ranks}\nwrote {config}\n"
    assert len(json.loads(ranks.read_text())) == 6
    assert set(json.loads(config.read_text())) == {
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
    }
    before = ranks.read_bytes()
    told = run(*words, "--energy", "0.5")
    assert (
        told.code == 1 and "exists already; give another name, or --overwrite" in told.err and told.out == ""
    )
    assert ranks.read_bytes() == before
    assert run(*words, "--energy", "0.5", "--overwrite").code == 0


def test_an_untrained_adapter_is_inconclusive(run, made):
    told = run("spectrum", made / "start")
    assert told.code == 3 and "No module has a spectrum: In all 6 modules" in told.err


@pytest.mark.parametrize(
    "words",
    [
        ("--rule", "eyes"),
        ("--energy", "0"),
        ("--margin", "1"),
        ("--null", "A"),
        ("--most", "0"),
        ("--layers", "x"),
    ],
)
def test_usage(run, made, words):
    told = run("spectrum", made / "first", *words)
    assert told.code == 2 and told.out == ""


def test_tested_needs_something_to_test_on(run, made):
    told = run("spectrum", made / "first", "--rule", "tested")
    assert told.code == 1 and "Nothing to test ranks on: the rule tested needs --model or --data" in told.err


@pytest.mark.parametrize("command", ["spectrum", "explain"])
def test_without_a_base_there_is_nothing_to_resume(command, run, made, tmp_path):
    told = run(command, made / "first", "--resume", tmp_path / "known")
    assert told.code == 1 and told.out == "" and not (tmp_path / "known").exists()
    assert told.err == (
        "error: Nothing to resume: --resume keeps what is measured against base weights; give --base, or leave "
        "--resume out\n"
    )
