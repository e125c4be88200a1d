"""The options of a question that many processes or machines can answer: how many, and which engine runs them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import click

from subspace.cli.number_types import Whole

__all__ = ["backend_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def backend_options(command: _F) -> _F:
    """Add where the work is done: --jobs, --backend and --scheduler.

    The command gets `workers`, a context that puts the engine in place and yields the number of jobs for the question.
    """

    @functools.wraps(command)
    def with_backend(
        *arguments: Any, jobs: int | None, backend: str, scheduler: str | None, **given: Any
    ) -> Any:
        return command(*arguments, workers=_workers(backend, scheduler, jobs), **given)

    optioned: Callable[..., Any] = with_backend
    for option in reversed(_OPTIONS):
        optioned = option(optioned)
    return cast(_F, optioned)


def _workers(name: str, scheduler: str | None, jobs: int | None) -> AbstractContextManager[int]:
    from subspace.analysis.backends import backend

    return backend(name, scheduler=scheduler, jobs=jobs)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--jobs",
        type=Whole(1),
        metavar="N",
        help="Number of processes; the numbers are the same.  [default: 1, on a cluster as many as it has]",
    ),
    click.option(
        "--backend",
        type=click.Choice(("local", "dask", "ray")),
        default="local",
        show_default=True,
        help="Engine that runs the processes: this machine, a Dask cluster, or Ray.",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Address of the Dask scheduler, such as tcp://127.0.0.1:8786, or of the Ray cluster; without one Ray "
        "starts on this machine.",
    ),
)
