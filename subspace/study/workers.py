"""The runs of a plan, trained by processes of their own, several at once.

Each has one thread and a session of its own: a Ctrl-C in the terminal reaches this process alone, which then asks each
of them to save and stop. They do so as well when this process is gone; see `worker_process`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from subspace.errors import InconclusiveError, SubspaceError
from subspace.study.paper import StudyPlan, StudyRun
from subspace.study.study_folder import run_record, steps_done
from subspace.text import listed, shown
from subspace.training.stop_request import terminable

if TYPE_CHECKING:
    from subspace.training.job import Job

__all__ = ["TrainingError", "cores", "job_of", "train_all"]

_POLL, _PATIENCE = 0.2, 60.0  # seconds; a worker that is asked to stop finishes its step first
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TrainingError(SubspaceError):
    """A run of a study failed; the message is the last line that its process printed."""


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def job_of(plan: StudyPlan, run: StudyRun, folder: Path) -> Job:
    """Return the training job of one run of a plan, whose study is in `folder`.

    Examples
    --------
    >>> from subspace.study.plan import planned
    >>> plan = planned()
    >>> [job_of(plan, run, Path()).method.r for run in plan.runs[:3]]
    [8, 64, 64]
    """
    return plan.job(run, folder)


def train_all(
    plan: StudyPlan, folder: Path, *, workers: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Train every run of a plan that is not done, the longest first.

    The folder above that of the runs is the study's, in which a text of its own may be.

    Parameters
    ----------
    folder : where the runs are, one directory each
    workers : how many runs are trained at once, at least 1
    progress : called with (steps done, steps in all)

    Raises
    ------
    SubspaceError : a run failed; the others have saved and stopped
    KeyboardInterrupt : after Ctrl-C or SIGTERM, when every run has saved and stopped
    """
    waiting = _batches(plan, folder)
    running: list[_Worker] = []
    with terminable():
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(_Worker.started(plan, waiting.pop(0), folder))
                time.sleep(_POLL)
                running = [worker for worker in running if not worker.ended()]
                if progress is not None:
                    done = sum(min(steps_done(folder / run.name), plan.steps(run)) for run in plan.runs)
                    progress(done, sum(map(plan.steps, plan.runs)))
        finally:
            _stop(running)


def _batches(plan: StudyPlan, folder: Path) -> list[tuple[StudyRun, ...]]:
    """The runs that are not done, by the process that trains them, the longest first: then all end at about one time.

    Those of a few steps share a process, which takes longer to start than they take.
    """
    runs = [run for run in plan.runs if not run_record(folder / run.name).get("done")]
    barely = tuple(run for run in runs if run.barely)
    batches = [*((run,) for run in runs if not run.barely), *([barely] if barely else [])]
    return sorted(batches, key=lambda batch: -sum(plan.steps(run) * plan.batch(run) for run in batch))


@dataclass
class _Worker:
    """A process that trains some runs, one after the other."""

    runs: tuple[StudyRun, ...]
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    @classmethod
    def started(cls, plan: StudyPlan, runs: tuple[StudyRun, ...], folder: Path) -> _Worker:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        process = subprocess.Popen(
            [sys.executable, "-m", "subspace.study.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
            start_new_session=True,
        )
        worker = cls(runs, process, errors)
        jobs = [(job_of(plan, run, folder.parent), folder / run.name) for run in runs]
        worker.give([{"job": job.document(), "out": os.fspath(out)} for job, out in jobs])
        return worker

    def give(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Write the jobs to the process, whose input stays open: when it ends, the process saves and stops."""
        stream = self.process.stdin
        if stream is not None:
            with suppress(BrokenPipeError):  # it has ended already, which `ended` will find
                stream.write(json.dumps(documents).encode() + b"\n")
                stream.flush()

    def ended(self) -> bool:
        """Return whether the process has ended.

        Raises
        ------
        SubspaceError : the run failed
        """
        code = self.process.poll()
        if code is None:
            return False
        last = self._last_line()
        self.close()
        if code == 0:
            return True
        kind = InconclusiveError if code == InconclusiveError.exit_code else TrainingError
        message = last or (f"Ended by signal {-code}" if code < 0 else f"Ended with exit code {code}")
        names = listed((run.name for run in self.runs), most=len(self.runs))
        raise kind(f"{shown(message, longest=2000)}, in run {names} of the study")

    def close(self) -> None:
        """Close the files that were opened for the process."""
        self.errors.close()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):  # of a job that it never read
                self.process.stdin.close()

    def _last_line(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "backslashreplace").splitlines()
        return next((line.removeprefix("error: ") for line in reversed(lines) if line.strip()), "")


def _stop(running: list[_Worker]) -> None:
    """Ask every process once to save and stop, wait, and end it if it does not; a second time would mean at once."""
    for worker in running:
        worker.process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for worker in running:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt):
                deadline = 0.0
            worker.process.kill()
            worker.process.wait()
        worker.close()
