"""A run followed while it goes on: the result of `track` again and again, as checkpoints come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from subspace.analysis.checkpoint_files import Checkpoint, finished_run
from subspace.analysis.resolve import Loading
from subspace.analysis.track import asked_for, checkpoints_of
from subspace.analysis.tracked_runs import tracked
from subspace.checkpoints.weights_files import CONFIG, weights_files
from subspace.errors import FileError, InconclusiveError, SubspaceError
from subspace.results.track import Track
from subspace.text import shown

__all__ = ["watched"]

_SETTLED = 2.0  # seconds after which a file that has not changed is taken to be whole
_Stamp = tuple[tuple[str, int, int], ...]


def watched(
    source: Any,
    *,
    every: float = 10.0,
    waiting: Callable[[float], None] = time.sleep,
    side: str | Sequence[str] = "all",
    directions: int | None = None,
    init: Any = None,
    controls: str = "all",
    by: str = "total",
    k: int = 10,
    epsilon: float = 0.5,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Track]:
    """Give the result of `track` whenever there are new checkpoints, until a run of ``subspace train`` is done.

    A checkpoint that is being written is waited for. Of other trainers' runs nothing says that they are done: the
    caller stops asking.

    Parameters
    ----------
    source : as `track` takes it; paths that exist, though there may be no checkpoint yet
    every : seconds between two looks
    waiting : called with the seconds to wait
    side, directions, init, controls, by, k, epsilon, base, scale, adapter_name, enable_lora, layout, rename, progress :
        as `track` takes them

    Raises
    ------
    FileError : a path does not exist
    SubspaceError : a file cannot be read although it is no longer written
    """
    asked = asked_for(side, directions, init, controls, by, k, epsilon, base)
    loading = Loading(base, scale, adapter_name, enable_lora, rename, layout)
    sources = source if isinstance(source, list | tuple) else [source]
    _require_there(sources)
    before: _Stamp = ()
    while True:
        done = all(finished_run(each) for each in sources)
        checkpoints, notes = _found(source)
        whole = [each for each in checkpoints if done or _is_whole(each)]
        stamp = tuple(stamp for each in whole for stamp in _stamps(each))
        if stamp != before:
            before = stamp
            result = _tracked(whole, notes if done else [], asked, loading, progress, last=done)
            if result is not None:
                yield replace(result, notes=tuple(dict.fromkeys(result.notes)))
        if done:
            return
        waiting(every)


def _tracked(
    whole: list[Checkpoint], notes: list[str], asked: Any, loading: Loading, progress: Any, *, last: bool
) -> Track | None:
    """The result; None as long as there is none, which later checkpoints may change."""
    try:
        return tracked(whole, notes, asked, loading, progress) if whole else None
    except (FileError, InconclusiveError):
        if last:
            raise
        return None


def _found(source: Any) -> tuple[list[Checkpoint], list[str]]:
    try:
        return checkpoints_of(source)
    except SubspaceError:
        return [], []  # nothing yet


def _require_there(sources: Sequence[Any]) -> None:
    for each in sources:
        if not isinstance(each, str | os.PathLike) or not Path(each).exists():
            raise FileError(
                f"Nothing to watch: {shown(each, longest=1000)} is no path that exists; give the folder that the run "
                "writes to, which may still be empty"
            )


def _is_whole(checkpoint: Checkpoint) -> bool:
    """Whether nobody has written to a checkpoint for a moment, and it has a configuration where its kind has one."""
    stamps = _stamps(checkpoint)
    newest = max((modified for _, _, modified in stamps), default=0)
    if time.time_ns() - newest < _SETTLED * 1e9:
        return False
    names = {Path(path).name for path, _, _ in stamps}
    peft = any(name.startswith("adapter_model.") for name in names)
    return not peft or CONFIG in names


def _stamps(checkpoint: Checkpoint) -> list[tuple[str, int, int]]:
    """Path, size and time of the files of a checkpoint."""
    path = Path(checkpoint.path)
    files = [path]
    if path.is_dir():  # without the trainer's state, which is removed later
        names = [each.name for each in path.iterdir() if each.is_file()]
        files = [path / name for name in (*weights_files(names), CONFIG) if name in names]
    found = []
    for each in sorted(files):
        try:
            state = each.stat()
        except OSError:
            continue  # removed meanwhile
        found.append((str(each), state.st_size, state.st_mtime_ns))
    return found
