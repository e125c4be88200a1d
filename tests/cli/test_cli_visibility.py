"""``subspace visibility``: what is left of a merge, on the command line."""

from __future__ import annotations

import csv
import io
import json

import contract
import numpy as np
import pytest


def test_the_table_has_its_columns_and_the_headline_its_numbers(run, made):
    told = run("visibility", "--base", made / "base.safetensors", "--delta", made / "first")
    assert told.code == 0
    header, *lines = told.out.splitlines()
    assert (
        header.split()
        == (
            "module store norm_delta_W changed changed_random norm_left cosine r phi_left phi_right flags"
        ).split()
    )
    assert len([line for line in lines if line.startswith("model.layers.")]) == 6
    assert "Merging and rounding to bfloat16 changes " in told.out
    assert "the base is stored in another type and is rounded" in told.err


def test_json_has_the_totals(run, made):
    told = run(
        "visibility",
        "--base",
        made / "base.safetensors",
        "--delta",
        made / "first",
        "--json",
        "--store",
        "int8",
    )
    found = contract.document(told.out.rstrip("\n"))
    assert found["schema"] == "subspace.visibility/1"
    for name in ("changed", "norm_left", "cosine"):
        assert 0 < found[name] <= 1.1
    assert {row["store"] for row in found["modules"]} == {"int8"}


def test_a_rank_of_zero_leaves_phi_out(run, made):
    words = ("visibility", "--base", made / "base.safetensors", "--delta", made / "first", "--csv")
    rows = list(csv.DictReader(io.StringIO(run(*words, "--rank", 0).out)))
    assert len(rows) == 6 and {row["phi_left"] for row in rows} == {""}
    rows = list(csv.DictReader(io.StringIO(run(*words, "--rank", 2).out)))
    assert {row["r"] for row in rows} == {"2"} and all(float(row["phi_left"]) > 0.9 for row in rows)


def test_a_scale_is_asked_for(run, made):
    words = ("visibility", "--base", made / "W.npy", "--delta", made / "pair.npz")
    told = run(*words)
    assert told.code == 3 and told.out == "" and told.err.count("\n") == 1 and "give --scale" in told.err
    assert run(*words, "--scale", "1").code == 0


def test_amplify_shows_what_is_left_with_store(run, made):
    words = ("amplify", "--base", made / "base.safetensors", "--delta", made / "first")
    told = run(*words, "--store", "bfloat16", "--json")
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, contract.AMPLIFY)
    alone = json.loads(run("visibility", *words[1:], "--store", "bfloat16", "--json", "--rank", 0).out)
    for row, other in zip(found["modules"], alone["modules"], strict=True):
        assert row["norm_left"] == pytest.approx(other["norm_left"])
    assert run(*words, "--store", "fp4").code == 2


def test_a_merge_that_does_nothing_says_so(run, tmp_path):
    np.save(tmp_path / "W.npy", np.ones((6, 8), np.float32))
    np.save(tmp_path / "dW.npy", np.full((6, 8), 2.0**-10, np.float32))
    told = run("visibility", "--base", tmp_path / "W.npy", "--delta", tmp_path / "dW.npy")
    assert told.code == 0 and "nothing of delta_W is left" in told.out
    assert "store the merged weights in a wider type" in told.err
