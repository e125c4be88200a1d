"""Workers that succeed, fail and are stopped; what they run is a stand-in for the process that trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from textwrap import indent

import pytest

from subspace.errors import InconclusiveError
from subspace.study.plan import planned
from subspace.study.workers import TrainingError, train_all
from subspace.training import Job, Recipe

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in is a POSIX script")

_STAND_IN = """
import json, os, pathlib, signal, sys, time
for document in json.loads(sys.stdin.readline()):
    out = pathlib.Path(document["out"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "threads").write_text(os.environ["OMP_NUM_THREADS"])
    (out / "began").write_text(repr(time.time()))
{body}
    (out / "run.json").write_text(json.dumps({{"done": True}}))
    (out / "ended").write_text(repr(time.time()))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Give a function that puts a script in the place of the process that trains."""

    def put(body):
        script = tmp_path / "stand_in.py"
        script.write_text(_STAND_IN.format(body=indent(body, 4 * " ")))
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{script}" "$@"\n')
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return put


def test_every_run_is_trained_by_one_thread_and_at_most_two_at_once(stand_in, tmp_path):
    stand_in('(out / "log.jsonl").write_text("{}\\n" * 5)\ntime.sleep(0.4)')
    plan, told = planned(steps=50), []
    train_all(plan, tmp_path / "runs", workers=2, progress=lambda *state: told.append(state))
    spans = []
    for run in plan.runs:
        folder = tmp_path / "runs" / run.name
        assert (folder / "threads").read_text() == "1"
        spans.append(tuple(float((folder / name).read_text()) for name in ("began", "ended")))
    at_once = max(sum(a <= begin < b for a, b in spans) for begin, _ in spans)
    assert at_once <= 2
    # the longest first: those that are barely trained begin last, one after the other in one process
    longest, barely = spans[:-3], spans[-3:]
    assert min(barely) > sorted(longest)[3] and barely[0][1] <= barely[1][0] and barely[1][1] <= barely[2][0]
    assert told[-1] == (5 * 5 + 3 * 4, 5 * 50 + 3 * 4)


def test_what_is_done_is_not_trained_again(stand_in, tmp_path):
    stand_in('raise SystemExit("error: must not run")')
    plan = planned(steps=50)
    for run in plan.runs:
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / "run.json").write_text(json.dumps({"done": True}))
    train_all(plan, tmp_path, workers=2)


@pytest.mark.parametrize(("code", "kind"), [(1, TrainingError), (3, InconclusiveError)])
def test_the_last_line_of_a_worker_that_fails_is_the_error_and_the_others_stop(
    stand_in, tmp_path, code, kind
):
    stand_in(
        f"if out.name == 'r8':\n"
        f"    while not (out.parent / 'r64' / 'ready').exists():\n        time.sleep(0.01)\n"
        f"    print('note: so far\\nerror: the loss must stay finite', file=sys.stderr)\n"
        f"    sys.exit({code})\n"
        f"def stop(*_):\n    (out / 'saved').write_text('')\n    sys.exit(130)\n"
        f"signal.signal(signal.SIGTERM, stop)\n"
        f"(out / 'ready').touch()\n"
        f"time.sleep(600)"
    )
    with pytest.raises(kind, match=r"^the loss must stay finite, in run r8 of the study$"):
        train_all(planned(steps=50), tmp_path, workers=2)
    assert (tmp_path / "r64" / "saved").exists()


def test_a_worker_that_says_nothing_is_named_with_its_signal(stand_in, tmp_path):
    stand_in("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(TrainingError, match="Ended by signal 9, in run"):
        train_all(planned(steps=50), tmp_path, workers=1)


def test_sigterm_stops_the_workers_once_and_ends_as_ctrl_c_does(stand_in, tmp_path):
    stand_in(
        "def stop(*_):\n    (out / 'saved').open('a').write('x')\n    time.sleep(0.3)\n    sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop)\n(out / 'ready').touch()\ntime.sleep(60)"
    )

    def poke(done, total):
        if all((tmp_path / name / "ready").exists() for name in ("r8", "r64")):
            os.kill(os.getpid(), 15)

    with pytest.raises(KeyboardInterrupt):
        train_all(planned(steps=50), tmp_path, workers=2, progress=poke)
    for name in ("r8", "r64"):
        assert (tmp_path / name / "saved").read_text() == "x"


def _process(document, **environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "subspace.study.worker_process"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    process.stdin.write(json.dumps([document]) + "\n")
    process.stdin.flush()
    return process


def test_the_process_says_its_error_in_its_last_line_and_its_kind_by_its_code(tmp_path):
    document = Job(data=str(tmp_path / "absent.txt")).document()
    process = _process({"job": document, "out": str(tmp_path / "out")})
    errors = process.stderr.read()  # with its input open: where that ends first, it stops
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("error: ") and "absent.txt" in errors.splitlines()[-1]


@pytest.mark.slow
def test_the_process_saves_and_stops_when_its_input_ends(tmp_path):
    job = Job(recipe=Recipe(steps=500, batch=2, length=32), threads=1, accounts=False)
    process = _process({"job": job.document(), "out": str(tmp_path / "out")})
    log, deadline = tmp_path / "out/log.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.stdin.close()
    process.stdin = None
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and errors.splitlines()[-1] == "error: interrupted"
    assert list((tmp_path / "out").glob("checkpoint-*/optimizer.safetensors"))


def test_a_process_whose_parent_is_gone_before_it_said_what_to_do_ends():
    done = subprocess.run([sys.executable, "-m", "subspace.study.worker_process"], input=b"", check=False)
    assert done.returncode == 130
