"""The directory of a training run: its record, its log, its checkpoints, and what it leaves behind.

Whatever is in it is whole at every moment. A checkpoint is complete once its optimiser state is there, which is put in
place last; the one before is given up only then.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from subspace.checkpoints.locking import taken
from subspace.checkpoints.writing import write_whole
from subspace.errors import FileError, ValueRangeError
from subspace.text import shown

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCHEMA", "RunFolder"]

SCHEMA = "subspace.train/1"
_STATE = "optimizer.safetensors"  # a name by which a reader of adapters knows that it is no adapter
_RECORD, _LOG = "run.json", "log.jsonl"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_TEMPORARY = re.compile(r"\.subspace-\w+\.tmp")
_ANEW = "remove it, or begin anew with --overwrite"
_OWN = ("adapter_model.safetensors", "adapter_config.json", "adapter.pt", "model.safetensors", "config.json")


class RunFolder:
    """A run's directory, which one process has to itself while it is open.

    Attributes
    ----------
    path : of the directory
    record : what ``run.json`` says; {} for a new run
    """

    def __init__(self, path: Path, record: dict[str, Any], log: IO[str]) -> None:
        self.path, self.record, self._log = path, record, log

    @classmethod
    @contextmanager
    def opened(
        cls, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False
    ) -> Iterator[RunFolder]:
        """Give the directory of a new run of these settings, or of one of the same that was interrupted or is done.

        Parameters
        ----------
        overwrite : begin anew where a run is there already; only what a run writes is removed

        Raises
        ------
        FileError : no directory, one of something else, in use by another process, not writable
        ValueRangeError : the run that is there has other settings; they are named
        """
        record = _read_record(path)
        if record and not overwrite:
            _require_same(path, record["settings"], settings)
            if (there := cls(path, record, io.StringIO())).done:
                yield there
                return
        try:
            path.mkdir(parents=True, exist_ok=True)
            log = (path / _LOG).open("a", encoding="utf-8")
        except OSError as error:
            raise _unwritable(path, error) from error
        with log:
            if taken(log.fileno()):
                raise FileError(
                    f"a run must have its directory to itself: got {shown(path, longest=1000)}, in which another "
                    "process trains; wait for it or choose another name"
                )
            if record and overwrite:
                _clear(path, log)
                record = {}
            for left in [*path.glob(".subspace-*.tmp"), *path.glob("*/.subspace-*.tmp")]:
                with suppress(OSError):
                    left.unlink()
            try:
                yield cls(path, record or {"schema": SCHEMA, "settings": dict(settings)}, log)
            finally:
                _tidy(path)

    @property
    def done(self) -> bool:
        """Whether the run has been finished, and what it left is there."""
        files = self.record.get("written", ())
        return bool(self.record.get("done")) and all((self.path / name).is_file() for name in files)

    def write(self, files: Mapping[str, bytes], **entries: Any) -> list[Path]:
        """Put files in place and then entries into the record; return the files' paths.

        Raises
        ------
        FileError : they cannot be written in full; those that were there stay
        """
        self.record |= entries
        contents = {self.path / name: content for name, content in files.items()}
        whole = json.dumps(self.record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(contents | {self.path / _RECORD: whole.encode()})
        return list(contents)

    def save(self, step: int, files: Mapping[str, bytes], state: Mapping[str, Tensor]) -> Path:
        """Write checkpoint `step`, from which a run can go on; the adapters of earlier ones stay, their states go.

        Raises
        ------
        FileError : it cannot be written in full; the one before stays the last good one
        """
        from subspace.training.save_adapter import safetensors_file

        folder = self.path / f"checkpoint-{step}"
        contents = {folder / name: content for name, content in files.items()}
        try:
            write_whole(contents | {folder / _STATE: safetensors_file(state, self._mark(step))})
        except FileError as error:
            with suppress(OSError):
                folder.rmdir()
            raise FileError(f"{error}; {self.last_good()}") from error
        self.forget_states(but=step)
        return folder

    def _mark(self, step: int) -> dict[str, str]:
        """What tells a checkpoint of this run and step from any other."""
        settings = json.dumps(self.record["settings"], sort_keys=True)
        return {"settings": hashlib.sha256(settings.encode()).hexdigest(), "step": str(step)}

    def forget_states(self, *, but: int | None = None) -> None:
        """Remove the optimiser states of checkpoints, which are of use only to go on from the last."""
        for step, folder in self._complete():
            if step != but:
                with suppress(OSError):
                    (folder / _STATE).unlink()

    def last(self) -> tuple[int, dict[str, Tensor]] | None:
        """The step and the state of the last complete checkpoint, None where there is none.

        Raises
        ------
        FileError : it cannot be read, or is not one of this run and step
        """
        from safetensors import SafetensorError, safe_open

        complete = self._complete()
        if not complete:
            return None
        step, folder = complete[-1]
        try:
            with safe_open(folder / _STATE, "pt") as file:
                mark = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError) as error:
            raise FileError(
                f"a checkpoint must be readable: got {shown(error)}, in {shown(folder, longest=1000)}; {_ANEW}"
            ) from error
        if any(mark.get(name) != value for name, value in self._mark(step).items()):
            raise FileError(
                f"a checkpoint must be of the run and the step that it is named after: got another, in "
                f"{shown(folder, longest=1000)}; {_ANEW}"
            )
        return step, state

    def last_good(self) -> str:
        """Where the last complete checkpoint is, as the end of an error."""
        complete = self._complete()
        if not complete:
            return "no checkpoint was saved before"
        return f"the last good checkpoint is {shown(complete[-1][1], longest=1000)}"

    def _complete(self) -> list[tuple[int, Path]]:
        found = [
            (int(match[1]), folder)
            for folder in self.path.glob("checkpoint-*")
            if (match := _CHECKPOINT.fullmatch(folder.name)) and (folder / _STATE).is_file()
        ]
        return sorted(found)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to the log.

        Raises
        ------
        FileError : it cannot be written
        """
        try:
            self._log.write(json.dumps(row, allow_nan=False) + "\n")
            self._log.flush()
        except OSError as error:
            # what is left in the buffer would fail once more when it is closed
            with suppress(OSError):
                self._log.close()
            raise FileError(f"{_unwritable(self.path / _LOG, error)}; {self.last_good()}") from error

    def rewind(self, step: int) -> None:
        """Cut the log after a step: rows beyond the checkpoint will be written again."""
        path = self.path / _LOG
        end = 0
        with path.open("rb") as rows:
            for row in rows:
                if not row.endswith(b"\n") or _step_of(row) > step:
                    break
                end += len(row)
        self._log.truncate(end)


def _tidy(path: Path) -> None:
    """Leave no trace of a run that ended before it began."""
    with suppress(OSError):
        if not (path / _RECORD).exists() and not (path / _LOG).stat().st_size:
            (path / _LOG).unlink()
            path.rmdir()


def _step_of(row: bytes) -> float:
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _read_record(path: Path) -> dict[str, Any]:
    """What run.json says, {} for a directory that is new or empty."""
    if not os.path.lexists(path):
        return {}
    if not path.is_dir():
        raise FileError(
            f"the output of a run must be a directory: got a file, {shown(path, longest=1000)}; choose another name"
        )
    try:
        others = sorted(entry.name for entry in path.iterdir() if not _TEMPORARY.fullmatch(entry.name))
    except OSError as error:
        raise _unwritable(path, error) from error
    if not others or (others == [_LOG] and not (path / _LOG).stat().st_size):
        return {}
    try:
        record = json.loads((path / _RECORD).read_bytes())
        if record["schema"] == SCHEMA and isinstance(record["settings"], dict):
            return dict(record)
        found = f"schema {shown(record['schema'])}"
    except FileNotFoundError:
        found = f"{', '.join(map(shown, others[:5]))}, but no {_RECORD}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        found = f"a {_RECORD} of something else"
    raise FileError(
        f"the output of a run must be a new directory or that of a run: got {found}, in {shown(path, longest=1000)}; "
        "choose another name"
    )


def _require_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differ:
        told = ", ".join(f"{key} {shown(_short(old.get(key)))}, now {_short(new.get(key))}" for key in differ)
        raise ValueRangeError(
            f"a run must go on with the settings that it began with: got {shown(told, longest=600)}, in "
            f"{shown(path, longest=1000)}; choose another directory, or --overwrite to begin anew"
        )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _clear(path: Path, log: IO[str]) -> None:
    """Remove what runs write, and nothing else; the record goes first, or a half-cleared run would look whole."""
    try:
        for name in (_RECORD, *_OWN):
            (path / name).unlink(missing_ok=True)
        log.truncate(0)
        for folder in [path / "start", *path.glob("checkpoint-*")]:
            if folder.name == "start" or _CHECKPOINT.fullmatch(folder.name):
                for name in (*_OWN, _STATE):
                    (folder / name).unlink(missing_ok=True)
                with suppress(OSError):
                    folder.rmdir()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(
        f"an output must be written in full: got {shown(error.strerror or error)}, in {shown(path, longest=1000)}; "
        "check the directory and the free space"
    )
