"""The directory of a training run: its record, its log, its checkpoints, and what it leaves behind.

Whatever is in it is whole at every moment. A checkpoint is complete once its optimiser state is there, which is put in
place last; the one before is given up only then.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from subspace.checkpoints.atomic_writing import write_whole
from subspace.errors import FileError
from subspace.text import shown
from subspace.training.output_folder import OutputFolder, cannot_write, sole_use

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RUN", "RunFolder"]

_STATE = "optimizer.safetensors"  # a name by which a reader of adapters knows that it is no adapter
_RECORD, _LOG = "run.json", "log.jsonl"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_ANEW = "remove it, or begin anew with `overwrite`"
_OWN = ("adapter_model.safetensors", "adapter_config.json", "adapter.pt", "model.safetensors", "config.json")

RUN = OutputFolder(
    noun="run",
    schema="subspace.train/1",
    record=_RECORD,
    other_settings="choose another directory, or begin anew with `overwrite`",
    logs=(_LOG,),
)


class RunFolder:
    """The directory of a run, which one process has to itself while it is open.

    Attributes
    ----------
    path : the directory
    record : content of ``run.json``
    """

    def __init__(self, path: Path, record: dict[str, Any], log: IO[str]) -> None:
        self.path, self.record, self._log = path, record, log

    @classmethod
    @contextmanager
    def opened(
        cls, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False
    ) -> Iterator[RunFolder]:
        """Open the directory of a new run, or of one with the same settings that was interrupted or is done.

        Parameters
        ----------
        path : the directory, which is made where it is missing
        settings : everything that decides the run's numbers, as plain values by name
        overwrite : begin anew where a run is there already; only what a run writes is removed

        Yields
        ------
        RunFolder : locked against other processes, unless the run is done

        Raises
        ------
        FileError : not a directory, one of something else, in use by another process, not writable
        ValueRangeError : the run that is there has other settings; they are named
        """
        if overwrite:
            RUN.read(path)  # a directory of something else is left alone, before a lock is made in it
        elif (there := cls(path, _begun(path, settings), io.StringIO())).done:
            yield there
            return
        with sole_use(path):
            try:
                with _opened_log(path) as log:
                    _remove_temporary(path)
                    begun: dict[str, Any] = {}
                    if not overwrite:
                        begun = _begun(path, settings)
                    elif RUN.read(path):
                        _clear(path, log)
                    yield cls(path, begun or {"schema": RUN.schema, "settings": dict(settings)}, log)
            finally:
                _remove_empty_log(path)

    @property
    def done(self) -> bool:
        """Whether the run has been finished, and what it left is there."""
        files = self.record.get("written", ())
        return bool(self.record.get("done")) and all((self.path / name).is_file() for name in files)

    def write(self, files: Mapping[str, bytes], **entries: Any) -> list[Path]:
        """Put files in place, and entries into the record; return the paths of the files.

        Raises
        ------
        FileError : they cannot be written in full; those that were there stay
        """
        self.record |= entries
        *paths, _ = RUN.write(self.path, self.record, files)
        return paths

    def save(self, step: int, files: Mapping[str, bytes], state: Mapping[str, Tensor]) -> Path:
        """Write checkpoint `step` and return its directory; the adapters of earlier ones stay, their states go.

        Raises
        ------
        FileError : it cannot be written in full; the checkpoint before it stays the last good one
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
        self.remove_states(but=step)
        return folder

    def _mark(self, step: int) -> dict[str, str]:
        """Metadata that tells a checkpoint of this run and step from any other."""
        settings = json.dumps(self.record["settings"], sort_keys=True)
        return {"settings": hashlib.sha256(settings.encode()).hexdigest(), "step": str(step)}

    def remove_states(self, *, but: int | None = None) -> None:
        """Remove the optimiser states of all checkpoints, or of all but one; only the last is needed to go on."""
        for step, folder in self._complete():
            if step != but:
                with suppress(OSError):
                    (folder / _STATE).unlink()

    def last(self) -> tuple[int, dict[str, Tensor]] | None:
        """Return the step and the state of the last complete checkpoint, None where there is none.

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
                f"Cannot read the checkpoint {shown(folder, longest=1000)}: {shown(error)}; {_ANEW}"
            ) from error
        if any(mark.get(name) != value for name, value in self._mark(step).items()):
            raise FileError(
                f"The checkpoint {shown(folder, longest=1000)} is of another run or step than its name says; {_ANEW}"
            )
        return step, state

    def last_good(self) -> str:
        """Return where the last complete checkpoint is, as the end of an error message."""
        complete = self._complete()
        if not complete:
            return "no checkpoint had been saved"
        return f"the last good checkpoint is {shown(complete[-1][1], longest=1000)}"

    def _complete(self) -> list[tuple[int, Path]]:
        found = [
            (int(match[1]), folder)
            for folder in self.path.glob("checkpoint-*")
            if (match := _CHECKPOINT.fullmatch(folder.name)) and (folder / _STATE).is_file()
        ]
        return sorted(found)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row of JSON to the log.

        Raises
        ------
        FileError : it cannot be written
        """
        try:
            self._log.write(json.dumps(row, allow_nan=False) + "\n")
            self._log.flush()
        except OSError as error:
            # what is left in the buffer would fail again when it is closed
            with suppress(OSError):
                self._log.close()
            raise FileError(f"{cannot_write(self.path / _LOG, error)}; {self.last_good()}") from error

    def rewind(self, step: int) -> None:
        """Cut the log after a step: the rows beyond the checkpoint will be written again."""
        path = self.path / _LOG
        end = 0
        with path.open("rb") as rows:
            for row in rows:
                if not row.endswith(b"\n") or _step_of(row) > step:
                    break
                end += len(row)
        self._log.truncate(end)


def _begun(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the run in a directory, which must be one of these settings; {} for a new run."""
    record = RUN.read(path)
    if record:
        RUN.require_same(path, record["settings"], settings)
    return record


def _opened_log(path: Path) -> IO[str]:
    try:
        return (path / _LOG).open("a", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error


def _remove_temporary(path: Path) -> None:
    """Remove files that a killed process had not put in place."""
    for left in [*path.glob(".subspace-*.tmp"), *path.glob("*/.subspace-*.tmp")]:
        with suppress(OSError):
            left.unlink()


def _remove_empty_log(path: Path) -> None:
    """Leave no trace of a run that ended before it began."""
    with suppress(OSError):
        if not (path / _RECORD).exists() and not (path / _LOG).stat().st_size:
            (path / _LOG).unlink()


def _step_of(row: bytes) -> float:
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _clear(path: Path, log: IO[str]) -> None:
    """Remove what a run writes, and nothing else; the record first, or a half-cleared run would look whole."""
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
        raise cannot_write(path, error) from error
