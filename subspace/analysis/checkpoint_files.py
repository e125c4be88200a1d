"""The checkpoints of runs in what a user names: the folder of a run, of files or of runs, or the files themselves."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from subspace import checkpoints
from subspace.adapters import Adapter
from subspace.analysis.checkpoint_steps import Step, named_step, step_of
from subspace.analysis.resolve import Loading
from subspace.checkpoints.weights_files import (
    ADAPTER_WEIGHTS,
    MODEL_WEIGHTS,
    adapter_weights,
    unread_weights,
    weights_files,
)
from subspace.errors import FileError, SubspaceError
from subspace.text import shown

__all__ = ["GIVEN", "Checkpoint", "checkpoints_in", "finished_run"]

_DEPTH = 3  # of folders in folders
_START, _RUN = "start", "run.json"
GIVEN = "given"  # the group of paths that were given one by one


@dataclass(frozen=True)
class Checkpoint:
    """One adapter that was saved along a run.

    Attributes
    ----------
    path : of the file, or of the folder of the adapter; as it is shown, for one in memory
    step : when it was saved
    group : what it was found in; checkpoints of one group are of one run unless their numbers show otherwise
    source : what `load_adapter` takes, where that is not the path
    starts : whether it was written as the start of the run, before its first step
    """

    path: str
    step: Step
    group: str
    source: Any = None
    starts: bool = False

    def adapter(self, loading: Loading) -> Adapter:
        """The adapter, opened; errors as `load_adapter`."""
        return loading.adapter(self.path if self.source is None else self.source)


def checkpoints_in(sources: Sequence[Any]) -> tuple[list[Checkpoint], list[str]]:
    """The checkpoints in what a user names, those of one group by their steps, and a note for each that is unreadable.

    Parameters
    ----------
    sources : paths of folders and files, or adapters as `load_adapter` takes them, in the order of their steps

    Raises
    ------
    FileError : a path does not exist, or nothing under it is an adapter
    """
    found: list[Checkpoint] = []
    notes: list[str] = []
    for n, source in enumerate(sources):
        if isinstance(source, str | os.PathLike) and os.path.lexists(source):
            found += _in_path(Path(source), notes)
        else:
            found.append(_as_given(source, n))
    if not found:
        raise FileError(
            notes[0]
            if notes
            else f"No checkpoint in {shown(', '.join(map(str, sources)), longest=1000)}: no file of an adapter in it; "
            "give the folder of a run, or its checkpoints one by one"
        )
    by_group: dict[str, list[Checkpoint]] = {}
    for each in _parted(found):
        by_group.setdefault(each.group, []).append(each)
    return [each for members in by_group.values() for each in _in_order(members)], notes


def _parted(found: list[Checkpoint]) -> list[Checkpoint]:
    """Of paths that were given one by one, a group for each folder that has several, and another where steps go back.

    In the order of a shell they go back too, checkpoint-1000 before checkpoint-500, which means nothing.
    """
    given = [each for each in found if each.group == GIVEN]
    parents = Counter(_parent(each) for each in given)
    if len(parents) > 1 and min(parents.values()) > 1:
        return [_regrouped(each, _parent(each)) if each.group == GIVEN else each for each in found]
    paths = [each.path for each in given]
    if paths == sorted(paths):
        return found
    groups, n, last = {}, 1, -1
    for each in given:
        number = last if each.step.number is None else each.step.number
        n += number < last
        groups[id(each)] = GIVEN if n == 1 else f"{GIVEN} ({n})"
        last = number
    return [_regrouped(each, groups.get(id(each), each.group)) for each in found]


def _parent(found: Checkpoint) -> str:
    """The folder that a checkpoint lies in; of a file with a name that all have, the folder that its folder lies in."""
    path = Path(found.path)
    return str(path.parent.parent if path.name in (*ADAPTER_WEIGHTS, *MODEL_WEIGHTS) else path.parent)


def finished_run(source: Any) -> bool:
    """Whether a folder is that of a run of ``subspace train`` that is done."""
    path = Path(source) / _RUN if isinstance(source, str | os.PathLike) else None
    if path is None or not path.is_file():
        return False
    try:
        record = checkpoints.read_json(path)
    except SubspaceError:
        return False
    written = record.get("written") or ()
    return bool(record.get("done")) and all((path.parent / str(name)).is_file() for name in written)


def _as_given(source: Any, n: int) -> Checkpoint:
    """A checkpoint that is no local path: of the hub, or in memory; without a step it is numbered."""
    given = getattr(source, "step", None)
    inner = source.source if isinstance(given, int) else source
    if isinstance(inner, str | os.PathLike):
        name = os.fspath(inner)
        step = Step(given, "step", "given") if isinstance(given, int) else named_step(name)
        return Checkpoint(name, step, GIVEN)
    number = given if isinstance(given, int) else n
    return Checkpoint(f"checkpoint {number} in memory", Step(number, "step", "given"), GIVEN, inner)


def _in_path(path: Path, notes: list[str]) -> list[Checkpoint]:
    if not path.is_dir():
        return _of_file(path, GIVEN, notes)
    found = _in_folder(path, notes, _DEPTH)
    # the path is one checkpoint: together with the other paths it is a run
    alone = len(found) == 1 and str(path) in (found[0].path, str(Path(found[0].path).parent))
    return [_regrouped(found[0], GIVEN)] if alone else found


def _regrouped(found: Checkpoint, group: str) -> Checkpoint:
    return Checkpoint(found.path, found.step, group, found.source, found.starts)


def _in_folder(folder: Path, notes: list[str], depth: int) -> list[Checkpoint]:
    """Checkpoints that are files of a folder, the folder itself, or folders in it."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        notes.append(f"Cannot read the directory {shown(folder, longest=1000)}: {error.strerror}")
        return []
    found = _own(folder, names, notes)
    if depth:
        for name in names:
            below = folder / name
            if not name.startswith(".") and below.is_dir():
                found += _below(folder, below, notes, depth - 1)
    return found


def _below(folder: Path, below: Path, notes: list[str], depth: int) -> list[Checkpoint]:
    """Checkpoints in a folder of a folder; one that is a checkpoint itself belongs to the outer."""
    inner = _in_folder(below, notes, depth)
    is_start = below.name == _START and (folder / _RUN).is_file()
    return [
        Checkpoint(
            each.path,
            Step(0, "step", _RUN, "start") if is_start else each.step,
            str(folder),
            starts=is_start or each.starts,
        )
        if each.path == str(below)
        else each
        for each in inner
    ]


def _own(folder: Path, names: Sequence[str], notes: list[str]) -> list[Checkpoint]:
    """The files of a folder: the adapter of the folder itself, and those with a number in their names."""
    files = weights_files([name for name in names if (folder / name).is_file()])
    main = adapter_weights(files)
    known = main in (*ADAPTER_WEIGHTS, *MODEL_WEIGHTS)
    found: list[Checkpoint] = []
    if main is not None:
        found += _of_folder(folder, main, notes) if known else _of_file(folder / main, str(folder), notes)
    others = unread_weights(files, main) if main is not None else files
    for name in others:
        if main is None or named_step(name).number is not None:
            found += _of_file(folder / name, str(folder), notes)
    return found


def _of_folder(folder: Path, weights: str, notes: list[str]) -> list[Checkpoint]:
    reader = partial(step_of, folder, folder.resolve().name)
    return _opened(str(folder), folder / weights, str(folder), reader, notes)


def _of_file(path: Path, group: str, notes: list[str]) -> list[Checkpoint]:
    if path.name in (*ADAPTER_WEIGHTS, *MODEL_WEIGHTS):
        return _opened(
            str(path), path, group, partial(step_of, path.parent, path.resolve().parent.name), notes
        )
    # what lies beside a file with a number of its own may be the record of another
    beside = path.parent if named_step(path.name).number is None else path.parent / path.name
    return _opened(str(path), path, group, partial(step_of, beside, path.name), notes)


def _opened(path: str, weights: Path, group: str, reader: Any, notes: list[str]) -> list[Checkpoint]:
    """A checkpoint whose file can be opened; of another there is a note."""
    try:
        metadata = checkpoints.open_weights(str(weights)).metadata
    except SubspaceError as error:
        fact, _, _ = str(error).partition("; ")
        notes.append(f"A checkpoint was left out, as it cannot be read: {fact}")
        return []
    return [Checkpoint(path, reader(metadata), group)]


def _in_order(members: list[Checkpoint]) -> list[Checkpoint]:
    """By step; what says no step is the end of a run, and keeps its place among those of one folder."""
    return sorted(members, key=lambda each: (each.step.number is None, each.step.number or 0))
