"""`subspace extract`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from subspace.training import save_base

MODULES = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(2) for p in "qv"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, a model with a LoRA of rank 3 merged into q, and one that was tuned whole."""
    folder, rng = tmp_path_factory.mktemp("models"), np.random.default_rng(0)
    W = {f"{name}.weight": 0.02 * rng.standard_normal((40, 40)) for name in MODULES}
    W["model.norm.weight"] = np.ones(40)
    merged = {
        key: M + (0.1 * rng.standard_normal((40, 3)) @ rng.standard_normal((3, 40)) if "q_proj" in key else 0)
        for key, M in W.items()
    }
    tuned = {key: M + 0.01 * rng.standard_normal(M.shape) for key, M in W.items()}
    for name, tensors in (("base", W), ("merged", merged), ("tuned", tuned)):
        (folder / name).mkdir()
        save_base(folder / name / "model.safetensors", tensors)
    return folder


def test_a_merged_lora_is_recovered(models, run, tmp_path):
    done = run("extract", "--base", models / "base", "--tuned", models / "merged", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "has rank 3 in q_proj (2 modules) and none in 2 modules." in done.out
    assert "The adapter has rank 3 in 2 modules" in done.out
    assert done.err.count("wrote ") == 2 and "warning" not in done.err
    again = run("inspect", tmp_path / "out", "--json")
    assert [row["r"] for row in json.loads(again.out)["modules"]] == [3, 3]


def test_json_and_csv_say_the_same(models, run, tmp_path):
    words = ("extract", "--base", models / "base", "--tuned", models / "tuned", "--rank", 2)
    document = json.loads(run(*words, "-o", tmp_path / "a", "--json").out)
    assert document["schema"] == "subspace.extract/1" and document["out"] == str(tmp_path / "a")
    assert [row["module"] for row in document["modules"]] == MODULES
    assert all(
        row["rank"] == 2 and 0 < row["error"] < 1 and "no_low_rank" in row["flags"]
        for row in document["modules"]
    )
    assert document["rest"] == [{"key": "model.norm.weight", "why": "not a matrix", "saved": False}]
    assert any("--save-rest" in note for note in document["notes"])
    lines = csv.DictReader(io.StringIO(run(*words, "-o", tmp_path / "b", "--csv").out))
    assert [float(line["error"]) for line in lines] == [row["error"] for row in document["modules"]]


def test_only_some_modules(models, run, tmp_path):
    words = ("extract", "--base", models / "base", "--tuned", models / "tuned", "--energy", "0.5", "--json")
    found = json.loads(run(*words, "-o", tmp_path / "a", "--modules", "*.v_proj", "--layers", "1").out)
    assert [row["module"] for row in found["modules"]] == ["model.layers.1.self_attn.v_proj"]
    assert found["modules"][0]["energy"] >= 0.5 and found["rest"] == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--rank", "2", "--energy", "0.5"), 2, "Give --rank or --energy, not both"),
        (("--rank", "0"), 2, "0 is not at least 1"),
        (("--rank", "many"), 2, "'many' is neither a whole number nor auto"),
        (("--tuned", "{base}"), 3, "No matrix changed between"),
        (("--tuned", "{base}/none"), 1, "none"),
        (("--out", "{tuned}"), 1, "tuned: it is the input"),
        (("--out", "{tuned}", "--overwrite"), 1, "tuned: it is the input"),
        (("--out", "{base}", "--overwrite"), 1, "base: it is a directory that holds something other"),
    ],
)
def test_what_is_refused(words, code, message, models, run, tmp_path):
    places = {name: models / name for name in ("base", "tuned")}
    before = {path: path.read_bytes() for path in sorted(models.glob("*/*"))}
    given = {"--base": models / "base", "--tuned": models / "tuned", "--out": tmp_path / "out"}
    given |= dict(zip(words[::2], words[1::2], strict=False)) if len(words) > 1 else {}
    line = [str(word).format(**places) for item in given.items() for word in item if word != "--overwrite"]
    done = run("extract", *line, *(["--overwrite"] if "--overwrite" in words else []))
    assert done.code == code and message in done.err and done.out == "", done
    assert "Traceback" not in done.err and not (tmp_path / "out").exists()
    assert {path: path.read_bytes() for path in sorted(models.glob("*/*"))} == before
