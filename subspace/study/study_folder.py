"""The folder of a study: its record, and who may use it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subspace.checkpoints.locking import taken
from subspace.checkpoints.writing import write_whole
from subspace.errors import FileError, ValueRangeError
from subspace.text import shown

__all__ = ["RECORD", "SCHEMA", "claimed", "run_record", "steps_done", "write_record"]

SCHEMA, RECORD = "subspace.study/1", "study.json"
_TEMPORARY = re.compile(r"\.subspace-\w+\.tmp")


@contextmanager
def claimed(folder: Path, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the record of the study in a folder, which one process has to itself meanwhile.

    One in which no run has begun becomes that of these settings.

    Raises
    ------
    FileError : the folder holds something else, cannot be made, or another process works in it
    ValueRangeError : the study that is there has other settings; they are named
    """
    _read(folder)
    with _alone(folder):
        yield _claimed(folder, settings)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process out of a folder, which is made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise FileError(
            f"a folder must be writable: got {shown(error.strerror or error)}, in {shown(folder, longest=1000)}; "
            "choose another name"
        ) from error
    try:
        if taken(place):
            raise FileError(
                f"a study must have its folder to itself: got {shown(folder, longest=1000)}, in which another process "
                "works; wait for it or choose another name"
            )
        yield
    finally:
        os.close(place)


def _claimed(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    record = _read(folder)
    if not record or not any(folder.glob("runs/*/run.json")):
        record = {"schema": SCHEMA, "settings": dict(settings), "done": False, "seconds": {}}
        write_record(folder, record)
    differ = [
        name
        for name in {**record["settings"], **settings}
        if record["settings"].get(name) != settings.get(name)
    ]
    if differ:
        told = ", ".join(
            f"{name} {_short(record['settings'].get(name))}, now {_short(settings.get(name))}"
            for name in differ
        )
        raise ValueRangeError(
            f"a study must go on with the settings that it began with: got {shown(told, longest=600)}, in "
            f"{shown(folder, longest=1000)}; choose another folder"
        )
    return record


def _short(value: Any) -> str:
    return shown(value if isinstance(value, str) else json.dumps(value), longest=60)


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write ``study.json``; return its path."""
    path = folder / RECORD
    write_whole({path: (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()})
    return path


def _read(folder: Path) -> dict[str, Any]:
    """What study.json says, {} for a folder that is new or empty."""
    if not os.path.lexists(folder):
        return {}
    try:
        others = sorted(entry.name for entry in folder.iterdir() if not _TEMPORARY.fullmatch(entry.name))
        if not others:
            return {}
        record = json.loads((folder / RECORD).read_bytes())
        if record["schema"] == SCHEMA and isinstance(record["settings"], dict):
            return dict(record)
        found = f"a {RECORD} of schema {shown(record['schema'])}"
    except FileNotFoundError:
        found = f"{', '.join(map(shown, others[:5]))}, but no {RECORD}"
    except NotADirectoryError:
        found = "a file"
    except OSError as error:
        found = shown(error.strerror or error)
    except (ValueError, KeyError, TypeError, RecursionError):
        found = f"a {RECORD} of something else"
    raise FileError(
        f"the output of a study must be a new folder or that of a study: got {found}, in "
        f"{shown(folder, longest=1000)}; choose another name"
    )


def run_record(run: Path) -> dict[str, Any]:
    """What a run's ``run.json`` says; {} where there is none yet.

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
            f"the record of a run must be readable: got {shown(error)}, in {shown(run, longest=1000)}; remove that run"
        ) from error


def steps_done(run: Path) -> int:
    """How many steps a run has logged."""
    try:
        return (run / "log.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0
