"""``python tests/study/killed.py --kills 50``: kill -9 at random moments of ``reproduce`` and of ``train``.

After each kill the same command is run again, to its end. What it leaves must be what an undisturbed one leaves, byte
for byte but for times, and no temporary file may remain. Everything is tiny, and processes are forked from this one,
which has imported all that they need: a whole study takes seconds. Every other kill takes the processes that train with
it, as a power failure does; the others leave them to save and stop by themselves.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny_models import TEXTS, tiny

_TIMES = re.compile(
    rb'"seconds": {[^}]*}|"(?:finished|seconds|analysis\w*|training\w*)": (?:"[^"]*"|[0-9.e+-]+)'
    rb"|finished [0-9T:Z-]+|[0-9.]+ minutes, and [0-9]+ seconds"
)


class Forked:
    """As much of `subprocess.Popen` as the study's workers need, without the time that imports take."""

    def __init__(self, command, *, stderr, **given):
        read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.dup2(read, 0)
            os.dup2(stderr.fileno(), 2)
            os.closerange(3, 1024)  # or locks and pipes of the parent would outlive it here
            os.setsid()
            _exit_with(_work)
        os.close(read)
        self.stdin, self.returncode = os.fdopen(write, "wb"), None

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=None):
        deadline = time.monotonic() + (timeout if timeout is not None else 1e9)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a worker", timeout)
            time.sleep(0.01)
        return self.returncode

    def terminate(self):
        self.send(signal.SIGTERM)

    def kill(self):
        self.send(signal.SIGKILL)

    def send(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)


def _work():
    from subspace.study.worker_process import main

    sys.stdin = open(0)  # noqa: SIM115 - for the life of the process
    return main()


def _exit_with(function):
    code = 70
    try:
        code = function() or 0
    except BaseException:  # noqa: BLE001 - of a forked process nobody else would print it
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def study(place, out):
    """Reproduce with a tiny model and two steps; of the figures, which take most of the time, one is drawn."""
    from subspace.report import page_content
    from subspace.study import study_figures, workers
    from subspace.study.plan import planned
    from subspace.study.study import conduct

    workers.subprocess = argparse.Namespace(**{**vars(subprocess), "Popen": Forked})
    workers._POLL = 0.02
    drawn = study_figures.pictures
    study_figures.pictures = lambda measures: iter([next(iter(drawn(measures)))])
    plan = planned(str(place / "model"), str(place / "text.txt"), steps=2)
    conduct(plan, out, workers=2, also=page_content)


def run(place, out):
    """Train a tiny model for eight steps with four checkpoints."""
    from subspace.training import Job, LoRA, Recipe, train

    recipe = Recipe(steps=8, batch=4, length=16, dtype="float32")
    method = LoRA(r=4, dropout=0.1)
    job = Job(model=str(place / "model"), data=str(place / "text.txt"), method=method, recipe=recipe)
    from dataclasses import replace

    train(replace(job, threads=1, accounts=False, save_every=2), out)


def begun(command, out):
    pid = os.fork()
    if not pid:
        _exit_with(partial(command, out))
    return pid


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def descendants(pid):
    """Processes that a process has started, and those that they have."""
    found, parents = [pid], {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    for each in found:
        found += parents.get(each, [])
    return found[1:]


def killed(command, out, after, *, workers):
    """Run a command and kill it, with its workers or without; return whether it was still at work."""
    pid = begun(command, out)
    time.sleep(after)
    below = descendants(pid)
    os.kill(pid, signal.SIGKILL)
    for each in below if workers else ():
        os.kill(each, signal.SIGKILL)
    code = ended(pid)
    while any(_alive(each) for each in below):
        time.sleep(0.02)
    return code == -signal.SIGKILL


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def content(out):
    """Path -> bytes of all that a command left, without times; of a checkpoint that depends on the kill nothing."""
    return {
        str(path.relative_to(out)): _timeless(path, out)
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.parent.name.startswith("checkpoint-")
    }


def _timeless(path, out):
    raw = path.read_bytes()
    if path.suffix in (".json", ".jsonl", ".html"):
        return _TIMES.sub(b"", raw).replace(os.fsencode(out), b"OUT")
    return raw


def _difference(expected, found, path):
    sides = (side.get(path, b"").decode("utf-8", "replace").splitlines() for side in (expected, found))
    return "\n".join(line[:300] for line in list(difflib.unified_diff(*sides, n=0))[:30])


def kills(name, command, folder, count, seed):
    """Kill a command `count` times at random moments; return how many hit it at work."""
    whole, again = folder / f"{name}-whole", folder / f"{name}-again"
    assert ended(begun(command, whole)) == 0
    began, expected = time.monotonic(), content(whole)
    assert ended(begun(command, again)) == 0
    seconds = time.monotonic() - began  # of the second one, which finds all files in the system's cache
    assert content(again) == expected, f"{name}: it is not the same twice"
    rng, hits = random.Random(seed), 0
    for n in range(count):
        out = folder / f"{name}-{n}"
        hit = killed(command, out, rng.uniform(0, seconds), workers=bool(n % 2))
        assert ended(begun(command, out)) == 0, f"{name} {n}: it does not go on"
        found = content(out)
        different = [path for path in {**expected, **found} if expected.get(path) != found.get(path)]
        assert not different, f"{name} {n}: {different}\n{_difference(expected, found, different[0])}"
        left = [
            *folder.glob(".subspace*"),
            *out.rglob(".subspace*"),
            *out.rglob("optimizer*"),
            *out.rglob("*SUMS"),
        ]
        assert not left, f"{name} {n}: {left}"
        hits += hit
        shutil.rmtree(out)
        print(f"{name}: {n + 1} of {count} kills, {hits} at work", file=sys.stderr, flush=True)
    return {"kills": count, "at work": hits, "seconds": round(seconds, 1)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", choices=("reproduce", "train"), action="append")
    given = parser.parse_args()
    # what every process needs, imported once
    import subspace.plots.figure_files
    import subspace.report
    import subspace.study.findings
    import subspace.study.measurements
    import subspace.study.study_figures
    import subspace.study.study_tables
    import subspace.training.run
    import subspace.training.tasks  # noqa: F401

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        tiny("llama", place / "model", hidden_size=64, num_hidden_layers=1)
        (place / "text.txt").write_text("\n".join(TEXTS * 60), encoding="utf-8")
        for of, command in (("reproduce", study), ("train", run)):
            if not given.of or of in given.of:
                found = kills(of, partial(command, place), place, given.kills, given.seed)
                print(json.dumps({"of": of, **found}), flush=True)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main()
