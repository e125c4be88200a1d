"""`subspace merge`: what it prints before and after, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json

import contract
import numpy as np
import pytest

import subspace
from subspace.geometry import mergers


def test_what_to_expect_comes_before_the_table(made, run, tmp_path):
    done = run("merge", made / "first", made / "second", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("Before merging: in 6 modules the weighted updates")
    heading = next(n for n, line in enumerate(lines) if line.startswith("module"))
    assert heading > 2 and "Before merging" not in "".join(lines[heading:])
    assert "2 adapters merged by sum into one of rank" in lines[-2]
    assert done.err.count("wrote ") == 2
    one, other, both = (
        subspace.load_adapter(path) for path in (made / "first", made / "second", tmp_path / "out")
    )
    for module in both:
        wanted = one[module].delta_W() + other[module].delta_W()
        assert np.linalg.norm(both[module].delta_W() - wanted) < 1e-6 * np.linalg.norm(wanted)


def test_json_and_csv_say_the_same(made, run, tmp_path):
    words = ("merge", made / "first", made / "second", "--weights", "1,-0.5", "--method", "svd", "--rank", 2)
    document = contract.document(run(*words, "-o", tmp_path / "a", "--json").out.rstrip("\n"))
    assert document["schema"] == "subspace.merge/1" and document["out"] == str(tmp_path / "a")
    assert document["settings"] == {"rank": 2} and document["total"]["error"] > 0
    assert [each["weight"] for each in document["adapters"]] == [1.0, -0.5]
    assert document["forecast"]["energy_ratio"] == pytest.approx(document["total"]["energy_ratio"])
    assert all(row["rank"] == 2 and row["overlap"] is not None for row in document["modules"])
    lines = csv.DictReader(io.StringIO(run(*words, "-o", tmp_path / "b", "--csv").out))
    assert [float(line["error"]) for line in lines] == [row["error"] for row in document["modules"]]
    assert (tmp_path / "a/adapter_model.safetensors").read_bytes() == (
        tmp_path / "b/adapter_model.safetensors"
    ).read_bytes()


def test_a_dry_run_writes_nothing(made, run, tmp_path):
    done = run("merge", made / "first", made / "second", "--dry-run", "-o", tmp_path / "out")
    assert done.code == 0 and "Before merging" in done.out and "wrote" not in done.err
    assert not (tmp_path / "out").exists()
    table = done.out.splitlines()[0].split()
    assert "cosine" in table and "error" not in table
    document = contract.document(
        run("merge", made / "first", made / "second", "--dry-run", "--json").out.rstrip("\n")
    )
    assert document["total"] is None and document["forecast"]["cosine"] is not None


@pytest.mark.parametrize("method", mergers.names())
def test_every_method_runs_and_is_explained(method, made, run, tmp_path):
    done = run(
        "merge", made / "first", made / "first", "--method", method, "--no-forecast", "-o", tmp_path / "out"
    )
    assert done.code == 0, done.err
    assert f"merged by {method}" in done.out and "Before merging" not in done.out
    told = " ".join(run("merge", "--help").out.split())
    assert " ".join(mergers.named(method).about.split()) in told


def test_another_format_and_a_scale_for_each(made, run, tmp_path):
    out = tmp_path / "out.safetensors"
    done = run("merge", made / "first", made / "second", "--scale", "1,2", "--to", "kohya", "-o", out)
    assert done.code == 0, done.err
    assert len(subspace.load_adapter(out)) == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("first", "second"), "Missing option '-o' / '--out'; or give --dry-run"),
        (("-o", "out"), "Missing argument 'ADAPTER...'"),
        (("first", "second", "-o", "out", "--weights", "1;2"), "not a list of numbers separated by commas"),
        (("first", "second", "-o", "out", "--weights", "1,inf"), "must be finite"),
        (("first", "second", "-o", "out", "--density", "0"), "--density"),
        (("first", "second", "--dry-run", "--no-forecast"), "--dry-run prints the forecast"),
        (("first", "second", "-o", "out", "--inputs", "x", "--no-forecast"), "--inputs is for the forecast"),
    ],
)
def test_a_wrong_use_says_what_is_right(words, told, made, run):
    done = run("merge", *(made / word if word in ("first", "second") else word for word in words))
    assert done.code == 2 and done.out == "" and told in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("first",), "Nothing to merge: 1 adapter; give two or more"),
        (
            ("first", "second", "--weights", "1"),
            "1 weight for 2 adapters; give --weights one number for each",
        ),
        (("first", "second", "--rank", "2"), "The method sum takes no --rank; it has no settings"),
        (("first", "second", "--method", "ties", "--seed", "1"), "The method ties takes no --seed"),
        (("first", "second", "--method", "linear"), "Factors of different ranks"),
        (("first", "nowhere"), "No such file"),
    ],
)
def test_what_cannot_be_merged_is_one_line_in_options(words, told, made, run, tmp_path):
    paths = [made / word if word in ("first", "second", "nowhere") else word for word in words]
    done = run("merge", *paths, "-o", tmp_path / "out")
    assert done.code == 1 and done.out == "" and done.err.count("\n") == 1, done
    assert told in done.err and "`" not in done.err
    assert not (tmp_path / "out").exists()


def test_updates_that_cancel_are_inconclusive(made, run, tmp_path):
    done = run("merge", made / "first", made / "first", "--weights", "1,-1", "-o", tmp_path / "out")
    assert done.code == 3 and "Nothing to write: the weighted updates cancel" in done.err


def test_an_input_is_never_the_output(made, run):
    for place in ("first", "second"):
        done = run("merge", made / "first", made / "second", "-o", made / place, "--overwrite")
        assert done.code == 1 and "is the input" in done.err


def test_an_adapter_there_is_replaced_only_when_asked(made, run, tmp_path):
    words = ("merge", made / "first", made / "second", "--no-forecast", "-o", tmp_path / "out")
    assert run(*words).code == 0
    done = run(*words, "--weights", "1,2")
    assert done.code == 1 and "exists already" in done.err
    assert run(*words, "--weights", "1,2", "--overwrite").code == 0
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["peft_type"] == "LORA"
