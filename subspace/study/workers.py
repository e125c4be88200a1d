"""The runs of a plan, trained by processes of their own, several at once.

Each is ``subspace train`` in a session of its own with one thread: a Ctrl-C in the terminal reaches this process alone,
which then asks each of them to save and stop. They do so as well when this process is gone (see ``worker``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from subspace.errors import InconclusiveError, SubspaceError
from subspace.study.plan import Plan, Run
from subspace.study.study_folder import run_record, steps_done
from subspace.text import shown

__all__ = ["TrainingError", "command_of", "cores", "train_all"]

_POLL, _PATIENCE = 0.2, 60.0  # seconds; a worker that is asked to stop finishes its step first
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TrainingError(SubspaceError):
    """A run of a study failed; the message is what it said last."""


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command_of(plan: Plan, run: Run, folder: Path) -> list[str]:
    """Words of the command that trains a run, after ``subspace``."""
    recipe = plan.recipe
    words: list[Any] = ["train", "--model", plan.model, *(["--data", plan.data] if plan.data else [])]
    words += ["--rank", run.rank, "--seed", run.seed, "--data-seed", run.seed, "--steps", recipe.steps]
    words += ["--batch", recipe.batch, "--length", recipe.length, "--lr", recipe.lr, "--alpha", recipe.alpha]
    for target in plan.targets(run):
        words += ["--targets", target]
    if groups := plan.groups(run):
        # a format that keeps groups apart, which PEFT's does not
        words += ["--groups", ",".join(str(int(on)) for on in groups), "--format", "loralib"]
    return [str(word) for word in (*words, "--threads", 1, "--no-accounts", "-o", folder / run.name)]


def train_all(
    plan: Plan, folder: Path, *, workers: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Train every run of a plan that is not done, `workers` at once, the longest first.

    Parameters
    ----------
    folder : of the runs
    progress : called with (steps done, steps in all)

    Raises
    ------
    SubspaceError : a run failed; the others have saved and stopped
    KeyboardInterrupt : after Ctrl-C or SIGTERM, when every run has saved and stopped
    """
    waiting = [run for run in plan.runs if not run_record(folder / run.name).get("done")]
    waiting.sort(key=lambda run: -run.rank * len(run.weights))
    running: list[_Worker] = []
    with _terminable():
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(_Worker.started(plan, waiting.pop(0), folder))
                time.sleep(_POLL)
                running = [worker for worker in running if not worker.ended()]
                if progress is not None:
                    done = sum(min(steps_done(folder / run.name), plan.recipe.steps) for run in plan.runs)
                    progress(done, plan.recipe.steps * len(plan.runs))
        finally:
            _stop(running)


@dataclass
class _Worker:
    """A process that trains one run."""

    run: Run
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    @classmethod
    def started(cls, plan: Plan, run: Run, folder: Path) -> _Worker:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        process = subprocess.Popen(
            [sys.executable, "-m", "subspace.study.worker_process", *command_of(plan, run, folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
            start_new_session=True,
        )
        return cls(run, process, said)

    def ended(self) -> bool:
        """Whether the run is done.

        Raises
        ------
        SubspaceError : it failed
        """
        code = self.process.poll()
        if code is None:
            return False
        last = self._last_line()
        self.close()
        if code == 0:
            return True
        kind = InconclusiveError if code == InconclusiveError.exit_code else TrainingError
        told = last or (f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}")
        raise kind(f"{shown(told, longest=2000)}, in run {self.run.name} of the study")

    def close(self) -> None:
        """Let what was held for it go."""
        self.said.close()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _last_line(self) -> str:
        self.said.seek(0)
        lines = self.said.read().decode("utf-8", "backslashreplace").splitlines()
        return next((line.removeprefix("error: ") for line in reversed(lines) if line.strip()), "")


def _stop(running: list[_Worker]) -> None:
    """Ask every process to save and stop, once, since a second time means at once; wait, then end it."""
    for worker in running:
        worker.process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for worker in running:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            worker.process.kill()
            worker.process.wait()
        worker.close()


@contextmanager
def _terminable() -> Iterator[None]:
    """Within it SIGTERM is what Ctrl-C is: processes that were started are stopped before this one ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        with suppress(TypeError):  # a handler that was not set from Python
            signal.signal(signal.SIGTERM, before)
