"""``subspace train`` as a user sees it: what it prints, what it refuses, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_models import TEXTS, tiny

_QUICK = ("--steps", "3", "--batch", "4", "--length", "32", "--threads", "1")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS * 30), encoding="utf-8")
    return path


def test_the_default_run_prints_what_it_learned_and_what_it_cost(run, tmp_path):
    done = run("train", *_QUICK, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "bytes of text; 32,768 parameters trained in 8 modules" in lines[0]
    assert lines[1].startswith("held out: loss ") and " -> " in lines[1]
    assert any(line.startswith("trained parameters") and "3,229,952" in line for line in lines)
    assert any("merged outputs differ from unmerged ones by" in line for line in lines)
    assert done.err.strip().endswith(f"wrote {tmp_path}/out")
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["held_out"]["after"]["loss"] < record["held_out"]["before"]["loss"]
    assert record["accounts"]["run"]["trainable"] == 8 * 2 * 8 * 256
    assert record["accounts"]["merged_difference"] <= 1e-5
    factors = load_file(tmp_path / "out/adapter_model.safetensors").values()
    assert np.isfinite([np.linalg.norm(factor) for factor in factors]).all()
    again = run("train", *_QUICK, "-o", tmp_path / "out")
    assert again.out == done.out and "is done already" in again.err
    compared = run("compare", tmp_path / "out", tmp_path / "out", "--init", tmp_path / "out/start", "--json")
    assert compared.code == 0 and len(json.loads(compared.out)["modules"]) >= 8
    amplified = run("amplify", "--base", "embedded", "--delta", tmp_path / "out", "--json")
    assert amplified.code == 0 and len(json.loads(amplified.out)["modules"]) == 8
    figure = run("compare", "embedded", tmp_path / "out", "--figure", "fig8", "-o", tmp_path / "drawn")
    assert figure.code == 0 and list((tmp_path / "drawn").glob("fig8*.png"))


def test_a_control_adapter_is_one_line_and_says_what_it_is(run, tmp_path, text):
    words = (*_QUICK, "--no-accounts", "--data", f"scrambled:{text}", "-o", tmp_path / "out")
    done = run("train", *words)
    assert done.code == 0, done.err
    assert "bytes of text, its characters shuffled; " in done.out.splitlines()[0]
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["settings"]["data"] == f"scrambled:{text}"
    assert record["data"].endswith("bytes of text, its characters shuffled")


def test_every_option_of_a_method_reaches_the_record(run, tmp_path, text):
    model = tiny("gpt2", tmp_path / "model")
    words = ("--rank", 4, "--alpha", 6, "--rslora", "--dropout", 0.1, "--init", "gaussian", "--targets", "c_attn",
             "--groups", "1,0,1", "--keep", "ln_f", "--seed", 3, "--data-seed", 4, "--lr", 0.01, "--schedule", "linear",
             "--warm-up", 0.1, "--weight-decay", 0.01, "--clip", 0.5, "--accumulate", 2, "--dtype", "bfloat16",
             "--held-out", 0.1, "--no-accounts")  # fmt: skip
    done = run("train", "--model", model, "--data", text, *_QUICK, *words, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out/run.json").read_text())
    settings = record["settings"]
    assert settings["method"] == {
        "kind": "lora", "r": 4, "alpha": 6.0, "rslora": True, "dropout": 0.1, "init": "gaussian", "seed": 3,
        "groups": [True, False, True], "freeze": None, "lr_ratio": None,
    }  # fmt: skip
    expected = {"seed": 3, "data_seed": 4, "lr": 0.01, "schedule": "linear", "warm_up": 0.1, "weight_decay": 0.01,
                "clip": 0.5, "accumulate": 2, "dtype": "bfloat16", "held_out": 0.1, "steps": 3, "batch": 4,
                "length": 32, "keep": ["ln_f"], "targets": ["c_attn"]}  # fmt: skip
    assert {name: settings[name] for name in expected} == expected
    assert record["kept"] == ["transformer.ln_f.weight", "transformer.ln_f.bias"]
    assert record.get("accounts") is None


def test_options_of_a_start_and_of_rates_reach_the_record_and_the_user(run, tmp_path, text):
    model = tiny("llama", tmp_path / "model")
    words = ("--model", model, "--data", text, *_QUICK, "--no-accounts")
    done = run("train", *words, "--init", "pissa", "--rank", 4, "--lr-ratio", 8, "-o", tmp_path / "pissa")
    assert done.code == 0, done.err
    assert (
        "note: the adapter is saved with rank 8, twice the r = 4 that is trained, so that it holds the change"
        in done.err
    )
    settings = json.loads((tmp_path / "pissa/run.json").read_text())["settings"]["method"]
    assert settings["init"] == "pissa" and settings["lr_ratio"] == 8 and settings["freeze"] is None
    words = (*words[:-1], "--method", "dora", "--freeze", "a", "--rslora")
    done = run("train", *words, "-o", tmp_path / "dora")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "dora/run.json").read_text())
    # B and a magnitude for each output, of q and v in two layers of width 32
    assert record["trainable"] == 4 * 32 * (8 + 1) and record["accounts"]["merged_difference"] < 1e-5
    inspected = run("inspect", tmp_path / "dora", "--json")
    assert inspected.code == 0 and "dora" in json.loads(inspected.out)["modules"][0]["flags"]
    refused = run("train", *words, "--lr-ratio", 8, "-o", tmp_path / "refused")
    assert (
        refused.code == 1
        and "--lr-ratio compares the rates of A and B, and --freeze a trains only" in refused.err
    )


@pytest.mark.parametrize(
    ("method", "file"), [("ia3", "adapter_model.safetensors"), ("full", "model.safetensors")]
)
def test_the_comparators(run, tmp_path, text, method, file):
    model = tiny("llama", tmp_path / "model")
    done = run("train", "--model", model, "--data", text, *_QUICK, "--method", method, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert (tmp_path / "out" / file).is_file() and not (tmp_path / "out/start").exists()


def test_a_table_of_reviews_works_as_it_is(run, tmp_path):
    model = tiny("bert", tmp_path / "model")
    rows = [f"{n}\t{text}\t{n % 2}" for n, text in enumerate(TEXTS * 20)]
    (tmp_path / "ratings.tsv").write_text("\n".join(["id\tdocument\tlabel", *rows]) + "\n")
    done = run("train", "--model", model, "--data", tmp_path / "ratings.tsv", *_QUICK, "--no-accounts",
               "-o", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    assert "60 examples, 2 classes (0 30, 1 30)" in done.out and "held out: accuracy 0." in done.out
    assert "classifier" in done.err  # that it starts at random is said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--targets", "nothing"), "No layer matches the target 'nothing'; the model has "),
        (
            ("--rank", 300),
            "Rank 300 is too large for a target of 256 x 256: a rank is at most the smaller dimension, in module ",
        ),
        (("--model", "absent/"), "absent"),
        (("--data", "absent.txt"), "absent.txt"),
        (("--lr", "nan"), "Invalid --lr nan: it must be finite"),
        (
            ("--groups", "1,0,1", "--targets", "q_proj"),
            "The module model.layers.0.self_attn.q_proj is not a fused layer, of which --groups are parts; leave",
        ),
    ],
)
def test_errors_are_one_line_and_leave_nothing(run, tmp_path, words, told):
    done = run("train", *_QUICK, *words, "-o", tmp_path / "out")
    assert done.code == 1 and not done.out
    (line,) = [line for line in done.err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("error: ") and told in line
    assert not (tmp_path / "out/adapter_model.safetensors").exists()


def test_usage_errors(run, tmp_path):
    assert run("train").code == 2
    assert run("train", "--feedforward", "x", "-o", tmp_path / "o").code == 2
    assert run("train", "--steps", 0, "-o", tmp_path / "o").code == 2


# the signal comes after the third step, however quick or slow the machine is
_SIGNALLED = """
import os, sys
from subspace.cli import main
from subspace.training.run import RunFolder
number, log, rows = int(sys.argv.pop(1)), RunFolder.log, []
def logged(self, row):
    log(self, row)
    rows.append(row)
    if len(rows) == 3:
        os.kill(os.getpid(), number)
RunFolder.log = logged
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_the_same_command_goes_on(run, tmp_path, number):
    words = ["train", "--steps", "6", "--batch", "4", "--length", "32", "--threads", "1", "--no-accounts"]
    assert run(*words, "-o", tmp_path / "whole").code == 0
    command = [sys.executable, "-c", _SIGNALLED, str(int(number)), *words, "-o", str(tmp_path / "cut")]
    child = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert child.returncode == 130
    assert child.stderr.strip().endswith(": saved at step 3; run the same command to go on"), child.stderr
    assert list((tmp_path / "cut").glob("checkpoint-*/optimizer.safetensors"))
    done = run(*words, "-o", tmp_path / "cut")
    assert done.code == 0 and "resuming from step" in done.err
    name = "adapter_model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_table_with_labels_may_be_read_as_texts(run, tmp_path):
    rows = [f"{text}\t{n % 2}" for n, text in enumerate(TEXTS * 20)]
    (tmp_path / "ratings.tsv").write_text("\n".join(["document\tlabel", *rows]) + "\n")
    words = ("train", "--data", tmp_path / "ratings.tsv", *_QUICK, "--no-accounts")
    refused = run(*words, "-o", tmp_path / "out")
    assert refused.code == 1 and "give --no-labels to model the texts alone" in refused.err
    done = run(*words, "--no-labels", "-o", tmp_path / "out")
    assert done.code == 0 and "held out: bits per byte" in done.out
    both = run(*words, "--no-labels", "--label-column", "label", "-o", tmp_path / "other")
    assert both.code == 1 and "labels are turned off; leave --label-column out" in both.err


@pytest.mark.parametrize("method", ["ia3", "full"])
@pytest.mark.parametrize("option", [("--rank", "4"), ("--alpha", "2"), ("--groups", "1,0,1"), ("--rslora",)])
def test_options_of_another_method_are_refused(run, tmp_path, method, option):
    done = run("train", "--method", method, *option, "-o", tmp_path / "out")
    assert done.code == 2 and f"{option[0]} needs --method lora" in done.err
    assert not (tmp_path / "out").exists()


def test_what_is_learned_and_measured_is_chosen_by_options(run, tmp_path):
    model = tiny("gpt2", tmp_path / "model")
    rows = [{"prompt": text[:20], "completion": text[20:]} for text in TEXTS * 20]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--model", model, "--data", tmp_path / "rows.jsonl", "--batch", 8, "--length", 24, "--threads", 1,
             "--no-accounts", "--train-on", "all", "--epochs", 0.5, "--evaluate-every", 2)  # fmt: skip
    done = run("train", *words, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "held out: token accuracy 0." in done.out
    notes = [line for line in done.err.splitlines() if line.startswith("note: step ")]
    assert [note.partition(",")[0] for note in notes] == ["note: step 2", "note: step 4"]
    assert "texts were cut at 24 tokens" in done.err and "give a larger --length to keep more" in done.err
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["settings"]["train_on"] == "all" and record["step"] == 4
    both = run("train", *words, "--steps", 200, "-o", tmp_path / "other")
    assert both.code == 2 and "--steps and --epochs exclude each other" in both.err
    assert run("train", *words, "--epochs", 0, "-o", tmp_path / "other").code == 2
