"""One function of many tasks in several processes, through joblib: results in the order of the tasks, as they come.

Whatever back end `joblib.parallel_config` has put in place is used (dask, ray); without one, processes of this machine
with one BLAS thread each, unless the environment says how many.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from subspace.errors import SubspaceError

__all__ = ["in_order"]

_T = TypeVar("_T")
_R = TypeVar("_R")
_POLL, _IDLE = 1.0, 30.0  # seconds
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def in_order(function: Callable[[_T], _R], tasks: Sequence[_T], *, jobs: int) -> Iterator[_R]:
    """Yield the results of all tasks, in their order, each as soon as those before it are there.

    Parameters
    ----------
    function : of one task; another process must be able to unpickle it, as it can a `partial` of a module's function
    jobs : number of processes; one runs the tasks here

    Raises
    ------
    SubspaceError : a process was killed; and whatever the function raises, after which the other processes end

    Examples
    --------
    >>> list(in_order(abs, [-1, 2], jobs=1))
    [1, 2]
    """
    if jobs == 1 or len(tasks) < 2:
        yield from map(function, tasks)
        return
    yield from _in_processes(function, tasks, min(jobs, len(tasks)))


def _in_processes(function: Callable[[_T], _R], tasks: Sequence[_T], jobs: int) -> Iterator[_R]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError
    from joblib.parallel import get_active_backend

    chosen = get_active_backend()[0]
    as_they_come = getattr(chosen, "supports_return_generator", False)
    with ExitStack() as stack:
        if type(chosen).__name__ == "LokyBackend":  # nobody has chosen another
            stack.enter_context(parallel_config("loky", n_jobs=jobs, **_own_processes()))
        kind = "generator" if as_they_come else "list"
        run = Parallel(n_jobs=jobs, return_as=kind, batch_size=1, max_nbytes=None)
    try:
        calls = [delayed(_caught)(function, task) for task in tasks]
        with _interrupts_for_this_process():
            results = run(calls) if as_they_come else _in_portions(run, calls, 4 * jobs)
        with _closed_quietly(results):
            for result, error in results:
                if error is not None:
                    raise error
                yield result
    except TerminatedWorkerError as error:
        raise SubspaceError(
            f"One of the {jobs} processes was ended by the system, most likely for lack of memory; give fewer `jobs`"
        ) from error


def _in_portions(run: Any, calls: Sequence[Any], most: int) -> Iterator[Any]:
    """Yield results from a back end that hands out none before it has all, Ray's: of some tasks at a time."""
    with run:
        for k in range(0, len(calls), most):
            yield from run(calls[k : k + most])


@contextmanager
def _closed_quietly(results: Any) -> Iterator[None]:
    """Drop the results that an error leaves over, of which joblib warns."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            results.close()


def _caught(function: Callable[[_T], _R], task: _T) -> tuple[_R | None, SubspaceError | None]:
    """A result or an error, so that the error of the first task is raised, and not that of the quickest."""
    try:
        return function(task), None
    except SubspaceError as error:
        return None, error


def _own_processes() -> dict[str, Any]:
    threads = None if any(name in os.environ for name in _THREADS) else 1
    begin = {"initializer": _begin, "initargs": (os.getpid(),)}
    return {"inner_max_num_threads": threads, "idle_worker_timeout": _IDLE, **begin}


@contextmanager
def _interrupts_for_this_process() -> Iterator[None]:
    """Let processes that start meanwhile never see a Ctrl-C, which a terminal sends to all; this one ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(parent: int) -> None:
    """Begin a process that ends with the one that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "getppid"):
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
