"""What an interrupted run says: how far it was saved, and how it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from subspace.errors import SubspaceError
from subspace.training.run_folder import RUN, RunFolder

__all__ = ["saying_what_is_saved"]


@contextmanager
def saying_what_is_saved(path: Path, *, overwrite: bool, accounts: bool) -> Iterator[None]:
    """Give a `KeyboardInterrupt` within the block a message: how far the run in a directory was saved.

    Parameters
    ----------
    path : the run's directory
    overwrite : whether the run begins anew
    accounts : whether its costs are to be measured
    """
    before = _stamp(path)
    try:
        yield
    except KeyboardInterrupt:
        begun = not (overwrite and _stamp(path) == before)
        message = _saved(path, accounts=accounts) if begun else ""
        without = " without `overwrite`" if overwrite and message else ""
        anew = "nothing was saved yet; run the same command to begin again"
        raise KeyboardInterrupt(message.format(f"run the same command{without}") or anew) from None


def _saved(path: Path, *, accounts: bool) -> str:
    """What is saved, with a pair of braces where the command stands; "" for nothing."""
    record = {}
    with suppress(SubspaceError):
        record = RUN.read(path)
    folder = RunFolder(path, record)
    if folder.done:
        measured = not accounts or "accounts" in record
        return "the run is done and written" + ("" if measured else "; {} to measure its costs")
    step = folder.last_step()
    return "" if step is None else f"saved at step {step}; {{}} to go on"


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells a record from the one that takes its place."""
    with suppress(OSError):
        found = os.stat(path / "run.json")  # noqa: PTH116
        return found.st_ino, found.st_mtime_ns
    return None
