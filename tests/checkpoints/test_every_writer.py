"""Every command that writes, killed or out of space at every operation: the old result is left, or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from safetensors.numpy import save_file
from step_runs import run, write_run

from subspace.cli import app
from subspace.training import save_peft

_EXHAUSTIVE = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]
_HERE = Path(__file__).parent
_MODULES = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(2) for p in "qv"]
_BASE = ("--base", "base.safetensors")
# what is put in place by one function, step by step
_STEPS = {
    "merge": ("merge", "a", "b", "-o", "place/merged", "--overwrite"),
    "extract": ("extract", *_BASE, "--tuned", "tuned.safetensors", "-o", "place/extracted", "--overwrite"),
    "intruders": ("intruders", *_BASE, "--delta", "a", "--mitigate", "0.5", "-o", "place/mild", "--overwrite"),
    "spectrum": ("spectrum", "a", "--ranks-out", "place/r.json", "--config-out", "place/c.json", "--overwrite"),
    "inputs": ("inputs", "--data", "text.txt", "--length", "32", "--targets", "q_proj", "-o",
               "place/inputs.safetensors", "--overwrite"),
    "track": ("track", "run", "-o", "place/track"),
    "library": ("library", "a", "b", "--plot", "heatmap", "-o", "place/figures"),
    "compare": ("compare", "a", "b", "--figure", "grid", "-o", "place/figures"),
    "demo": ("demo", "-o", "place/demo"),
}  # fmt: skip
# what grows, and what has a writer of its own: the same command once more ends as if nothing had happened
_WHOLE = {
    "library": ("library", "a", "b", "c", "--index", "place/index"),
    "library, Parquet": ("library", "a", "b", "c", "--parquet", "place/pairs.parquet", "--overwrite"),
    "amplify": ("amplify", *_BASE, "--delta", "a", "--no-cache", "--resume", "place/known"),
    "align": ("align", *_BASE, "--delta", "a", "--no-cache", "--resume", "place/known"),
    "visibility": ("visibility", *_BASE, "--delta", "a", "--no-cache", "--resume", "place/known"),
    "explain": ("explain", "a", *_BASE, "--no-cache", "--resume", "place/known"),
    "intruders": ("intruders", *_BASE, "--delta", "a", "--no-cache", "--resume", "place/known"),
    "spectrum": ("spectrum", "a", *_BASE, "--no-cache", "--resume", "place/known"),
    "extract": ("extract", *_BASE, "--tuned", "tuned.safetensors", "-o", "place/extracted", "--overwrite",
                "--no-cache", "--resume", "place/known"),
}  # fmt: skip
_ELSEWHERE = {"convert", "truncate", "train", "reproduce"}  # see test_fault_points.py and study/killed.py
_WRITING = {"OUT", "--out", "-o", "--resume", "--index", "--parquet", "--ranks-out", "--config-out"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Adapters a, b and c, base weights, weights with a merged in, text, a run; and place/, with a user's note."""
    rng = np.random.default_rng(0)
    base = {f"{m}.weight": rng.standard_normal((32, 32)).astype(np.float32) for m in _MODULES}
    for name in "abc":
        factors = {m: (rng.standard_normal((4, 32)), rng.standard_normal((32, 4))) for m in _MODULES}
        save_peft(tmp_path / name, factors, alpha=8)
        if name == "a":
            tuned = {
                f"{m}.weight": base[f"{m}.weight"] + (2 * B @ A).astype(np.float32)
                for m, (A, B) in factors.items()
            }
            save_file(base, tmp_path / "base.safetensors")
            save_file(tuned, tmp_path / "tuned.safetensors")
    (tmp_path / "text.txt").write_text("\n".join(f"{n} of the lines of a text" for n in range(80)))
    write_run(tmp_path / "run", run(0), (0, 10, 20, 30))
    (tmp_path / "place").mkdir()
    (tmp_path / "place/notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _points(*words):
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, _HERE / "fault_points.py", *words],
        env={**os.environ, "PYTHONPATH": str(_HERE.parents[1]), **threads},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("fault", ["kill", "full"])
@pytest.mark.parametrize("command", [pytest.param(each, marks=_EXHAUSTIVE) for each in _STEPS])
def test_old_or_new(here, command, fault):
    first = _points(fault, "place", *_STEPS[command])
    again = _points(fault, "place", *_STEPS[command])  # in the place of what the first left
    assert min(first + again) >= 4
    assert (here / "place/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("command", [pytest.param(each, marks=_EXHAUSTIVE) for each in _WHOLE])
def test_killed_anywhere_the_same_command_ends_in_the_same(here, command):
    if "Parquet" in command:
        pytest.importorskip("pyarrow")
    assert _points("kill", "--whole", "place", *_WHOLE[command])[0] >= 4
    assert (here / "place/notes.txt").read_text() == "mine"


def test_every_command_that_writes_is_here():
    context = click.Context(app)
    writing = set()
    for name in app.list_commands(context):
        parameters = app.get_command(context, name).params
        if any(_WRITING & {*parameter.opts, parameter.metavar} for parameter in parameters):
            writing.add(name)
    assert writing == _ELSEWHERE | set(_STEPS) | {name.partition(",")[0] for name in _WHOLE}
