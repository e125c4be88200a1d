"""``subspace reproduce`` with a few real steps: what it leaves, and that it goes on after it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from statistics import median

import pytest
from tiny_models import TEXTS, tiny

_VERDICTS = ("agrees", "agrees in part", "holds, but so does noise", "differs", "cannot be told")


def _words(folder, steps):
    return [
        sys.executable,
        "-m",
        "subspace",
        "reproduce",
        "--steps",
        str(steps),
        "--workers",
        "2",
        "-o",
        str(folder),
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduced") / "study"
    ended = subprocess.run(_words(folder, 3), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder, ended


@pytest.mark.slow
def test_it_prints_each_finding_and_writes_what_it_says(done):
    folder, ended = done
    record = json.loads((folder / "study.json").read_text())
    lines = ended.stdout.splitlines()
    for finding in record["findings"]:
        assert finding["verdict"] in _VERDICTS
        assert any(line.startswith(finding["verdict"]) and finding["claim"] in line for line in lines)
    assert lines[-1].startswith("Of 7 claims of the paper")
    told = [line.removeprefix("wrote ") for line in ended.stderr.splitlines()]
    assert str(folder / "index.html") in told and all(map(os.path.exists, told))
    assert (folder / "index.html").stat().st_size > 50_000


@pytest.mark.slow
def test_what_is_trained_is_above_isotropic_random_spans_and_a_few_steps_are_no_finding(done):
    folder, _ = done
    record = json.loads((folder / "study.json").read_text())
    ranks = {run["name"]: run["rank"] for run in record["runs"]}
    assert list(ranks.items())[:3] == [("r8", 8), ("r64", 64), ("r64-seed1", 64)]
    assert sum(record["seconds"].values()) > 0
    for run in record["runs"][:4]:
        assert run["held_out"]["after"]["loss"] < run["held_out"]["before"]["loss"]
    learned = [row for row in record["comparisons"]["seeds"]["modules"] if row["init"] == "removed"]
    assert median(row["phi_11"] * row["d"] for row in learned if row["side"] == "a") > 10
    random = [row for row in record["controls"]["random"]["seeds"]["modules"] if row["side"] == "a"]
    assert not [each for each in record["findings"] if each["verdict"] == "agrees"]
    assert all(0.5 < row["times_chance"] < 2 and row["shared_dim"] == 0 for row in random)


@pytest.mark.slow
def test_again_it_only_draws(done):
    folder, _ = done
    adapters = sorted(folder.glob("runs/*/adapter_model.safetensors"))
    before = [path.stat().st_mtime_ns for path in adapters]
    ended = subprocess.run(_words(folder, 3), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert [path.stat().st_mtime_ns for path in adapters] == before


@pytest.mark.slow
def test_other_settings_in_its_folder_are_an_error(done):
    folder, _ = done
    ended = subprocess.run(_words(folder, 4), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert (
        ended.stderr.startswith("error: The study in ")
        and "was begun with other settings: steps 3, now 4; choose another folder" in ended.stderr
    )
    assert ended.stderr.count("\n") == 1


def _logged(folder, name):
    log = folder / "runs" / name / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _wait_until_both_train(folder, process):
    """Two steps of each of the two that are trained at once; the limit of time is the suite's."""
    while min(_logged(folder, name) for name in ("r8", "r64")) < 2:
        assert process.poll() is None, "it ended before the signal"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_terminated_it_saves_and_the_same_command_goes_on(tmp_path):
    folder, steps = tmp_path / "study", 24
    process = subprocess.Popen(
        _words(folder, steps), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait_until_both_train(folder, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith(
        "error: interrupted: saved with 0 of 8 runs done; run the same command"
    )
    checkpoints = sorted(
        path.parent.parent.name for path in folder.glob("runs/*/checkpoint-*/optimizer.safetensors")
    )
    assert checkpoints == ["r64", "r8"]
    assert not json.loads((folder / "study.json").read_text())["done"]
    ended = subprocess.run(_words(folder, steps), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = [
        json.loads(row)["step"] for row in (folder / "runs" / "r64" / "log.jsonl").read_text().splitlines()
    ]
    assert rows == list(range(1, steps + 1))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_killed_it_leaves_no_training_behind_and_the_same_command_goes_on(tmp_path):
    folder, steps = tmp_path / "study", 24
    process = subprocess.Popen(_words(folder, steps), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_until_both_train(folder, process)
    process.kill()
    process.wait()
    # a worker that is left alone saves after the step it is in
    while len(saved := list(folder.glob("runs/*/checkpoint-*/optimizer.safetensors"))) < 2:
        time.sleep(0.05)
    stopped = {path.parent.parent.name: int(path.parent.name.rpartition("-")[2]) for path in saved}
    assert sorted(stopped) == ["r64", "r8"] and max(stopped.values()) < steps
    time.sleep(1)
    assert {name: _logged(folder, name) for name in stopped} == stopped
    ended = subprocess.run(_words(folder, steps), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_help_says_how_long_it_takes(run):
    done = run("reproduce", "--help")
    assert done.code == 0
    assert "three minutes" in done.out and "--full" in done.out and "Ctrl-C" in done.out


@pytest.mark.slow
def test_a_model_of_ones_own_whose_q_k_v_are_fused(tmp_path):
    pytest.importorskip("transformers")
    model = tiny("gpt2", tmp_path / "model", n_embd=192)
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 60), encoding="utf-8")
    words = [*_words(tmp_path / "study", 3), "--model", str(model), "--data", str(tmp_path / "text.txt")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "study/study.json").read_text())
    ends = {row["module"].rpartition(".")[2] for row in record["comparisons"]["ranks"]["modules"]}
    assert ends == {"c_attn[q]", "c_attn[v]"}
    assert {row["rank_second"] for row in record["comparisons"]["ranks"]["modules"]} == {64}
    # random weights: nothing is in W that could be amplified
    verdicts = {finding["key"]: finding["verdict"] for finding in record["findings"]}
    assert verdicts["correlated"] != "agrees"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_classifiers_with_new_heads_share_a_base_for_all_their_seeds(tmp_path):
    pytest.importorskip("transformers")
    model = tiny("bert", tmp_path / "model", hidden_size=64, num_hidden_layers=1)
    rows = [f"{text}\t{n % 2}" for n in range(20) for text in TEXTS[: 1 + n % 2]]
    (tmp_path / "rows.tsv").write_text("\n".join(["document\tlabel", *rows]) + "\n", encoding="utf-8")
    words = [*_words(tmp_path / "study", 1), "--model", str(model), "--data", str(tmp_path / "rows.tsv")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "study/study.json").read_text())
    assert {run["task"] for run in record["runs"]} == {"classify"}
    assert len({run["settings"]["model_sha256"] for run in record["runs"]}) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("paper", "figures", "claims"),
    [
        ("intruders", ("by-rate", "thresholds", "forgetting", "mitigation"), "Of 6 claims of the paper"),
        ("rank", ("loss", "spectra"), "Of 11 claims about ranks"),
    ],
)
def test_another_paper_is_reproduced_from_training_to_its_page(tmp_path, paper, figures, claims):
    words = [*_words(tmp_path / "study", 2), "--paper", paper]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "study/study.json").read_text())
    assert record["settings"]["paper"] == paper and record["done"]
    for figure in figures:
        assert (tmp_path / f"study/figures/{figure}.png").stat().st_size > 5_000
    lines = ended.stdout.splitlines()
    for finding in record["findings"]:
        assert finding["verdict"] in _VERDICTS
        assert any(line.startswith(finding["verdict"]) and finding["claim"] in line for line in lines)
    assert lines[-1].startswith(claims)
    if paper == "intruders":  # two steps move nothing far enough
        assert all(row["intruders"] <= 3 for row in record["tables"]["intruders"] if row["lr"] < 0.005)
        assert not [
            each for each in record["findings"] if each["key"] == "mitigated" and each["verdict"] == "agrees"
        ]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("study/runs/*/run.json")}
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and again.stdout == ended.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    refused = subprocess.run(_words(tmp_path / "study", 2), capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "begun with other settings" in refused.stderr
