"""Killed at every point, or on a full disk at every point: what is left is the old result or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from subspace.training import save_peft

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
_HERE = Path(__file__).parent
_MODULES = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(2) for p in "qv"]
_ENV = {
    **os.environ,
    "PYTHONPATH": str(_HERE.parents[1]),
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two adapters of one rank and other scales, and in place/ what is to be replaced, with notes of the user."""
    rng = np.random.default_rng(0)
    for name, alpha in (("a", 8), ("b", 128)):
        factors = {m: (rng.standard_normal((4, 32)), rng.standard_normal((32, 4))) for m in _MODULES}
        save_peft(tmp_path / name, factors, alpha=alpha)
        if name == "b":
            save_peft(tmp_path / "place/adapter", factors, alpha=alpha)
    (tmp_path / "place/adapter/README.md").write_text("mine")
    (tmp_path / "place/adapter/notes").mkdir()
    (tmp_path / "place/adapter/notes/1").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _points(*words: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, _HERE / "fault_points.py", *words],
        env=_ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


_OVER = ("place", "convert", "a", "place/adapter", "--to", "peft", "--overwrite")
_CUT = ("place", "truncate", "a", "place/adapter", "--rank", "2", "--overwrite")
_TRAIN = ("train", "-o", "place/run", "--steps", "2", "--save-every", "1", "--no-accounts", "--length", "32")


def test_an_adapter_that_is_replaced_when_the_process_is_killed(here):
    assert _points("kill", *_OVER)[0] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "full", "denied", "interrupt"])
@pytest.mark.parametrize("merge", [(), ("--merge",)], ids=["exchanged", "merged"])
@pytest.mark.parametrize("command", [_OVER, _CUT], ids=["convert", "truncate"])
def test_an_adapter_that_is_replaced(here, fault, merge, command):
    assert _points(fault, *merge, *command)[0] >= 10


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_new_adapter_and_a_single_file(here, fault):
    assert _points(fault, "place", "convert", "a", "place/deep/new", "--to", "peft")[0] >= 5
    assert _points(fault, "place", "convert", "a", "place/new.pt", "--to", "loralib")[0] >= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_figures_that_are_replaced(here, fault):
    figures = ["--figure", "fig3", "--figure", "grid", "-o", "place/figures"]
    subprocess.run([sys.executable, "-m", "subspace", "compare", "b", "b", *figures], env=_ENV, check=True)
    (here / "place/figures/notes.txt").write_text("mine")
    assert _points(fault, "place", "compare", "a", "b", *figures)[0] >= 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_run_and_one_in_its_place(here, fault):
    assert len(_points(fault, "place", *_TRAIN, "--batch", "2")) == 3
    (here / "place/run/notes.txt").write_text("mine")
    assert len(_points(fault, "place", *_TRAIN, "--batch", "1", "--overwrite")) == 3
    assert (here / "place/run/notes.txt").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_that_is_drawn_again(here):
    (count,) = _points("kill", "place", "study")
    assert count >= 100
