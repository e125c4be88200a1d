"""One function of many tasks in several processes, through joblib: results in the order of the tasks, as they come.

Whatever back end `joblib.parallel_config` has put in place is used (dask, ray); without one, processes of this machine
with one BLAS thread each, unless the environment says how many.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

from subspace.errors import SubspaceError

__all__ = ["in_order"]

_T = TypeVar("_T")
_R = TypeVar("_R")
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

    threads = None if any(name in os.environ for name in _THREADS) else 1
    with ExitStack() as stack:
        if type(get_active_backend()[0]).__name__ == "LokyBackend":  # nobody has chosen another
            stack.enter_context(parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads))
        run = Parallel(n_jobs=jobs, return_as="generator", batch_size=1, pre_dispatch="2*n_jobs")
        call = delayed(partial(_guarded, function, os.getpid()))
        try:
            yield from run(call(task) for task in tasks)
        except TerminatedWorkerError as error:
            raise SubspaceError(
                f"One of the {jobs} processes was ended by the system, most likely for lack of memory; give fewer "
                "`jobs`"
            ) from error


def _guarded(function: Callable[[Any], Any], parent: int, task: Any) -> Any:
    """Run a task; a Ctrl-C in the terminal, which every process gets, is the business of the first one."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return function(task)
