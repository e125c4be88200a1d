"""``subspace evaluate``: adapters on their model, by run.json or by what is given."""

from __future__ import annotations

import csv
import io

import pytest
from contract import EVALUATE, check, document
from tiny_models import TEXTS, tiny

from subspace.training import Job, LoRA, Recipe, train

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny LLaMA, a text, and two adapters that were trained on it."""
    folder = tmp_path_factory.mktemp("evaluated")
    tiny("llama", folder / "model")
    (folder / "text.txt").write_text("\n".join(f"{n}. {line}" for n in range(30) for line in TEXTS))
    recipe = Recipe(steps=8, batch=4, length=16, lr=1e-2, dtype="float32", held_out=0.2)
    for name, r in (("r4", 4), ("r2", 2)):
        job = Job(
            model=str(folder / "model"),
            data=str(folder / "text.txt"),
            method=LoRA(r=r),
            recipe=recipe,
            threads=1,
            accounts=False,
        )
        train(job, folder / name)
    return folder


def test_an_adapter_is_measured_on_what_its_run_held_out(run, folder):
    done = run("evaluate", "--adapter", folder / "r4", "--truncate", "1,2")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:5] == ["update", "loss", "loss_difference", "loss_low", "loss_high"]
    assert [line.split()[0] for line in lines[1:5]] == ["base", "r4", "r4@r=1", "r4@r=2"]
    assert "lowers the held-out loss by" in done.out
    assert "nats per token against the base; truncated to rank 1" in done.out
    assert "held out of" in done.out and "paired bootstrap" in done.out


def test_json_has_every_field_and_losses_where_they_are_asked_for(run, folder):
    words = ("--adapter", f"a={folder / 'r4'}", "--adapter", f"b={folder / 'r2'}", "--merge", "0.5*a+0.5*b")
    found = document(run("evaluate", *words, "--json").out.rstrip())
    check(found, EVALUATE)
    assert [row["update"] for row in found["rows"]] == ["base", "a", "b", "0.5*a+0.5*b"]
    assert found["rows"][0]["loss_difference"] is None and found["data"][0]["held_out"] == 0.2
    found = document(run("evaluate", *words, "--json", "--losses").out.rstrip())
    assert all(len(row["losses"]) == found["data"][0]["examples"] for row in found["rows"])


def test_several_data_and_some_of_the_rows(run, folder):
    text = folder / "text.txt"
    done = run(
        "evaluate", folder / "model", "--adapter", folder / "r4", "--data", f"own={text}", "--data",
        f"all={text}", "--held-out", "1", "--most", "10", "--length", "16", "--csv", "--rows", "r*",
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [(row["update"], row["data"]) for row in rows] == [("r4", "own"), ("r4", "all")]
    assert "Only 10 windows of own" in done.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--losses", "--adapter", "r4"], 2, "--losses needs --json"),
        (
            ["--adapter", "a=r4", "--adapter", "a=r2"],
            2,
            "two have the same name; give each its own, as NAME=PATH",
        ),
        (["--adapter", "base=r4"], 1, "An adapter cannot be called 'base'"),
        (["model"], 1, "no adapter has a run.json in its directory that names some; give --data"),
        (["--adapter", "r4", "--reference", "x"], 1, "Nothing is called 'x'"),
        (["--adapter", "r4", "--held-out", "0.7"], 1, "Invalid --held-out 0.7"),
    ],
)
def test_what_cannot_be_measured(run, folder, monkeypatch, words, code, message):
    monkeypatch.chdir(folder)
    done = run("evaluate", *words)
    assert done.code == code and message in done.err, done.err


def test_help_waits_for_no_torch(run_apart):
    code = "import sys; sys.argv = ['subspace', 'evaluate', '--help']\nfrom subspace.cli import main\n"
    code += "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
