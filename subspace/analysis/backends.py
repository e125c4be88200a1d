"""Where the tasks of a question run: processes of this machine, a Dask cluster or Ray, by their own joblib back ends.

Nothing here schedules: `backend` puts one of them in place for `analysis.workers`, which asks joblib for whatever is.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from subspace.errors import SubspaceError, ValueRangeError
from subspace.text import listed, shown

__all__ = ["BACKENDS", "backend"]

BACKENDS = ("local", "dask", "ray")
_SECONDS = 20  # to reach a scheduler, and for its first worker to come


@contextmanager
def backend(name: str = "local", *, scheduler: str | None = None, jobs: int | None = None) -> Iterator[int]:
    """Let the tasks of questions run somewhere else meanwhile; yield the number of `jobs` to give to a question.

    Parameters
    ----------
    name : {"local", "dask", "ray"}
    scheduler : str, optional
        Address of the Dask scheduler, such as tcp://127.0.0.1:8786; without one the client that this program has. Of
        Ray the address of a cluster; without one Ray starts on this machine.
    jobs : int, optional
        Number of processes; without one 1 here, and as many as there are on a cluster. A Dask cluster always uses all
        of its workers.

    Raises
    ------
    ValueRangeError
        If `name` is none of these, a scheduler is given for this machine, or there is less than one job.
    SubspaceError
        If the engine is not installed, its scheduler cannot be reached or has no workers, the workers have another
        version of this package, or a task is lost again and again.

    Notes
    -----
    A cluster's workers open the files themselves: paths must mean the same there as here. What a lost worker was at,
    others do again; Dask gives up a task that four workers were lost with, unless it is configured otherwise.

    Examples
    --------
    >>> with backend(jobs=2) as jobs:
    ...     jobs
    2
    """
    if name not in BACKENDS:
        raise ValueRangeError(
            f"Unknown back end {shown(repr(name))}: `backend` is one of {', '.join(BACKENDS)}"
        )
    if jobs is not None and jobs < 1:
        raise ValueRangeError(f"Too few processes: {jobs}; give `jobs` of at least 1")
    if name == "local":
        if scheduler is not None:
            raise ValueRangeError(
                f"A scheduler without its back end: {shown(repr(scheduler))}; give `backend` too, dask or ray"
            )
        yield 1 if jobs is None else jobs
        return
    with ExitStack() as stack:
        entered = stack.enter_context((_dask if name == "dask" else _ray)(scheduler, jobs))
        yield max(2, entered)  # one job would be done in this process


@contextmanager
def _dask(scheduler: str | None, jobs: int | None) -> Iterator[int]:
    try:
        from distributed import KilledWorker
    except ImportError:
        raise _missing("distributed", "dask") from None
    from joblib import parallel_config

    from subspace.analysis.dask_backend import AnsweringDask

    with ExitStack() as stack:
        client = _client(scheduler, stack)
        workers = _dask_workers(client)
        chosen = AnsweringDask(client=client, wait_for_workers_timeout=_SECONDS)
        stack.enter_context(parallel_config(chosen))
        try:
            yield workers
        except KilledWorker as error:
            raise SubspaceError(
                f"Dask workers were lost with one task {error.allowed_failures + 1} times, most likely "
                "for lack of memory; start workers with more of it"
            ) from error


def _client(scheduler: str | None, stack: ExitStack) -> Any:
    """The client of a scheduler, which is closed in the end; or the one that the program has."""
    from distributed import Client, get_client

    if scheduler is None:
        try:
            return get_client()
        except ValueError:
            raise SubspaceError("No Dask scheduler: give `scheduler`, such as tcp://127.0.0.1:8786") from None
    try:
        return stack.enter_context(Client(scheduler, timeout=_SECONDS, set_as_default=False))
    except (OSError, ValueError, TypeError) as error:
        raise SubspaceError(
            f"The Dask scheduler cannot be reached: {shown(repr(scheduler))}; start it with dask scheduler, and give "
            "the address that it prints as `scheduler`"
        ) from error


def _dask_workers(client: Any) -> int:
    """How many tasks the workers run at once; they are there and have this version."""
    try:
        client.wait_for_workers(1, timeout=_SECONDS)
    except TimeoutError:
        raise SubspaceError(
            f"The Dask scheduler has no workers: {shown(repr(client.scheduler.address))}; start some with dask worker "
            "and its address"
        ) from None
    try:
        found = client.run(_version)
    except ImportError as error:
        raise SubspaceError(
            "The package lora-subspace is not installed on a Dask worker; install it where the workers start"
        ) from error
    others = sorted({version for version in found.values() if version != _version()})
    if others:
        raise SubspaceError(
            f"Dask workers have another version of lora-subspace: {listed(others)}, here it is {_version()}; install "
            "one version everywhere"
        )
    return sum(client.ncores().values())


def _version() -> str:
    from subspace import __version__

    return __version__


@contextmanager
def _ray(address: str | None, jobs: int | None) -> Iterator[int]:
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # its default, of which it warns when unset
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise _missing("ray", "ray") from None
    from joblib import parallel_config

    with ExitStack() as stack:
        if not ray.is_initialized():
            _start_ray(ray, address)
            stack.callback(ray.shutdown)
        register_ray()
        workers = jobs or int(ray.cluster_resources().get("CPU", 1))
        stack.enter_context(parallel_config("ray", n_jobs=workers))
        yield workers


def _start_ray(ray: Any, address: str | None) -> None:
    try:
        if address is not None and ":" in address:  # Ray itself tries for five minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=_SECONDS).close()
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        what = "cannot be reached: " + shown(repr(address)) if address else "does not start on this machine"
        raise SubspaceError(
            f"Ray {what}; start a cluster with ray start --head, and give its address as `scheduler`"
        ) from error


def _missing(package: str, extra: str) -> SubspaceError:
    return SubspaceError(
        f"The package {package} is not installed; it is needed for the back end {extra}: "
        f"pip install 'lora-subspace[{extra}]'"
    )
