"""The folder of a study: its record, and how far its runs are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import FileError
from subspace.text import shown
from subspace.training.output_folder import OutputFolder, sole_use

if TYPE_CHECKING:
    from subspace.study.paper import StudyPlan

__all__ = [
    "STUDY",
    "claimed",
    "record_content",
    "run_record",
    "saying_what_is_saved",
    "steps_done",
    "write_record",
]

STUDY = OutputFolder(
    noun="study", schema="subspace.study/2", record="study.json", other_settings="choose another folder"
)


@contextmanager
def claimed(folder: Path, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the record of the study in a folder, which one process has to itself meanwhile.

    A folder in which no run has begun becomes that of a study with these settings.

    Raises
    ------
    FileError : the folder holds something else, cannot be made, or another process works in it
    ValueRangeError : the study that is there has other settings; they are named
    """
    STUDY.read(folder)  # a folder of something else is left alone, before a lock is made in it
    with sole_use(folder):
        yield _begun(folder, settings)


def _begun(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    record = STUDY.read(folder)
    if not record or not any(folder.glob("runs/*/run.json")):
        record = {"schema": STUDY.schema, "settings": dict(settings), "done": False, "seconds": {}}
        write_record(folder, record)
    STUDY.require_same(folder, record["settings"], settings)
    return record


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write ``study.json``; return its path.

    Raises
    ------
    FileError : it cannot be written
    """
    return STUDY.write(folder, record)[-1]


def record_content(folder: Path, record: Mapping[str, Any]) -> dict[Path, bytes]:
    """Return path -> content of ``study.json``."""
    return STUDY.content(folder, record)


def run_record(run: Path) -> dict[str, Any]:
    """Return the content of a run's ``run.json``; {} where there is none yet.

    Raises
    ------
    FileError : it cannot be read
    """
    try:
        return dict(json.loads((run / "run.json").read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise FileError(
            f"Cannot read the record of the run {shown(run, longest=1000)}: {shown(error)}; remove that run"
        ) from error


@contextmanager
def saying_what_is_saved(plan: StudyPlan, folder: Path) -> Iterator[None]:
    """Give a `KeyboardInterrupt` within the block a message: how many runs are done, and that the study can go on."""
    try:
        yield
    except KeyboardInterrupt:
        runs = [folder / "runs" / run.name for run in plan.runs]
        done = sum(1 for run in runs if _done(run))
        if done or any(folder.glob("runs/*/checkpoint-*")):
            saved = f"saved with {done} of {len(runs)} runs done; run the same command to go on"
        else:
            saved = "nothing was saved yet; run the same command to begin again"
        raise KeyboardInterrupt(saved) from None


def _done(run: Path) -> bool:
    with suppress(FileError):
        return bool(run_record(run).get("done"))
    return False


def steps_done(run: Path) -> int:
    """Return how many steps a run has logged."""
    try:
        return (run / "log.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0
