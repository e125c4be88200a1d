"""Ctrl-C and SIGTERM at every stage of a run: what it says, that nothing is half written, and that it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_run import _job, _same_run
from tiny_models import TEXTS, tiny

from subspace.cli import app
from subspace.training import train
from subspace.training.stop_request import stop_requests

pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")

_GO_ON, _AGAIN = "run the same command to go on", "nothing was saved yet; run the same command to begin again"

# the command line with a signal when a function is called for the n-th time, and again at another one
_SIGNALLED = """
import importlib, os, sys
from subspace.cli import main

def signalled(place, n, number):
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    original, calls = getattr(owner, name), []
    def replaced(*args, **kwargs):
        calls.append(1)
        if len(calls) == int(n):
            os.kill(os.getpid(), int(number))
        return original(*args, **kwargs)
    setattr(owner, name, replaced)

while sys.argv[1] != "--":
    place, n, number = sys.argv[1].split(",")
    signalled(place, n, number)
    del sys.argv[1]
del sys.argv[1]
main()
"""
_LOADING = "subspace.training.models.load_model:load_base"
_STEP = "subspace.training.loop:Trainer.advance"
_WRITING = "subspace.checkpoints.atomic_writing:_write_all"
_MEASURING = "subspace.training.loop:evaluate"


_WORDS = ["--model", "model", "--data", "text.txt", "--steps", "6", "--batch", "4", "--length", "16"]
_WORDS += ["--threads", "1", "--no-accounts", "--save-every", "2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tiny("llama", folder / "model")
    (folder / "text.txt").write_text("\n".join(TEXTS * 30), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _here("whole")
    return folder / "whole"


@pytest.fixture
def place(whole, monkeypatch):
    monkeypatch.chdir(whole.parent)
    return whole.parent


def _here(out):
    """Run the command in this process, which has imported all that it needs."""
    app.main(["train", *_WORDS, "-o", str(out)], standalone_mode=False)


def _command(place, out, *signals, overwrite=False):
    start = [sys.executable, "-c", _SIGNALLED, *signals, "--"]
    more = ["--overwrite"] if overwrite else []
    return subprocess.run(
        [*start, "train", *_WORDS, *more, "-o", str(out)],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _last_line(ended):
    return ended.stderr.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "at", "n", "message"),
    [
        (signal.SIGINT, _LOADING, 1, _AGAIN),
        (signal.SIGTERM, _LOADING, 1, _AGAIN),
        (signal.SIGINT, "subspace.training.data:load_examples", 1, _AGAIN),
        (signal.SIGINT, _STEP, 1, _AGAIN),
        (signal.SIGINT, _WRITING, 1, _AGAIN),  # of the start
        (signal.SIGINT, _STEP, 4, f"saved at step 4; {_GO_ON}"),
        (signal.SIGTERM, _STEP, 4, f"saved at step 4; {_GO_ON}"),
        (
            signal.SIGINT,
            _WRITING,
            2,
            f"saved at step 3; {_GO_ON}",
        ),  # of checkpoint 2: after the step that follows
        (signal.SIGINT, _MEASURING, 2, "the run is done and written"),
    ],
)
def test_it_says_what_is_saved_and_the_same_command_goes_on(place, tmp_path, number, at, n, message):
    out = tmp_path / "cut"
    ended = _command(place, out, f"{at},{n},{int(number)}")
    assert ended.returncode == 130 and _last_line(ended) == f"error: interrupted: {message}", ended.stderr
    assert not [*tmp_path.rglob(".subspace*")]
    _here(out)
    _same_run(place / "whole", out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "message"),
    [
        ([(_STEP, 4), ("torch.optim.adamw:AdamW.step", 4)], f"saved at step 2; {_GO_ON}"),
        ([(_STEP, 3), (_WRITING, 3)], f"saved at step 2; {_GO_ON}"),
        ([(_LOADING, 1), (_STEP, 1)], _AGAIN),
    ],
)
def test_a_second_one_ends_at_once_with_nothing_half_written(place, tmp_path, at, message):
    out = tmp_path / "cut"
    ended = _command(place, out, *(f"{where},{n},{int(signal.SIGINT)}" for where, n in at))
    assert ended.returncode == 130 and _last_line(ended) == f"error: interrupted: {message}", ended.stderr
    assert not [*tmp_path.rglob(".subspace*")] and not [*out.glob("checkpoint-3")]
    _here(out)
    _same_run(place / "whole", out)


@pytest.mark.slow
def test_a_run_that_begins_anew_says_how_it_goes_on(place, tmp_path):
    out = tmp_path / "cut"
    _here(out)
    ended = _command(place, out, f"{_LOADING},1,2", overwrite=True)
    assert _last_line(ended) == f"error: interrupted: {_AGAIN}"
    _same_run(place / "whole", out)
    ended = _command(place, out, f"{_STEP},3,2", overwrite=True)
    assert _last_line(ended).endswith("saved at step 3; run the same command without --overwrite to go on")


def test_the_first_signal_is_left_to_the_step_once_it_was_asked_about():
    announced = []
    with stop_requests(lambda: announced.append(1)) as stopping:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopping() and not announced
    with stop_requests(lambda: announced.append(1)) as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping() and announced == [1]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_in_the_library_says_how_far_it_was_saved(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 30), encoding="utf-8")
    job = _job(tiny("llama", tmp_path / "model"), str(tmp_path / "text.txt"), save_every=2)

    def at(step):
        def progress(done, steps, note):
            if done == step:
                raise KeyboardInterrupt

        return progress

    for step, message in ((1, _AGAIN), (3, f"saved at step 2; {_GO_ON}"), (5, f"saved at step 4; {_GO_ON}")):
        with pytest.raises(KeyboardInterrupt, match=f"^{message}$"):
            train(job, tmp_path / "out", progress=at(step))
    assert not list(Path(tmp_path).rglob(".subspace*"))
    assert train(job, tmp_path / "out").resumed == 4
