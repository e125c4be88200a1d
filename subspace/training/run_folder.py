"""The directory of a training run: its record, its log, its checkpoints, and what it leaves behind.

Whatever is in it is whole at every moment. A checkpoint is a directory that appears in one step, with checksums; the
one before stays, in case the disk damages the last. A run that is begun anew leaves the old one in place until its own
first record is written.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from subspace.checkpoints.atomic_writing import write_whole
from subspace.errors import FileError
from subspace.text import shown
from subspace.training.checkpoint_sums import SUMS, DamageError, require_undamaged, sums_of
from subspace.training.older_settings import completed
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

    def __init__(self, path: Path, record: dict[str, Any], *, replaces: bool = False) -> None:
        self.path, self.record, self._replaces = path, record, replaces
        self._log: IO[str] = io.StringIO()

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
        overwrite : begin anew where a run is there already: `write` first removes what a run writes, nothing else

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
        elif (there := cls(path, _begun(path, settings))).done:
            yield there
            return
        with sole_use(path):
            replaces = overwrite and bool(RUN.read(path))
            begun = {} if overwrite else _begun(path, settings)
            folder = cls(path, begun or {"schema": RUN.schema, "settings": dict(settings)}, replaces=replaces)
            try:
                folder._open_log()
                yield folder
            finally:
                folder._log.close()
                _remove_empty_log(path)

    @property
    def done(self) -> bool:
        """Whether the run has been finished, and what it left is there."""
        files = self.record.get("written", ())
        return bool(self.record.get("done")) and all((self.path / name).is_file() for name in files)

    @contextmanager
    def finished(self) -> Iterator[None]:
        """Lock the directory of a run that is done, with its record as it is now; remove what a kill left behind.

        Raises
        ------
        FileError : another process works in the directory, or it cannot be written
        """
        with sole_use(self.path):
            self.record = RUN.read(self.path)
            self.remove_states()
            yield

    def write(self, files: Mapping[str, bytes], **entries: Any) -> list[Path]:
        """Put files in place, and entries into the record; return the paths of the files.

        Raises
        ------
        FileError : they cannot be written in full; those that were there stay
        """
        self.record |= entries
        old = _written_by_a_run(self.path) if self._replaces else []
        *paths, _ = RUN.write(self.path, self.record, files, without=old)
        if self._replaces:
            self._replaces = False
            self._log.close()
            self._open_log()
        return paths

    def save(self, step: int, files: Mapping[str, bytes], state: Mapping[str, Tensor]) -> Path:
        """Write checkpoint `step` and return its directory; the adapters of earlier ones stay, and the last state.

        Raises
        ------
        FileError : it cannot be written in full; the checkpoint before it stays the last good one
        """
        from subspace.training.save_adapter import safetensors_file

        folder = self.path / f"checkpoint-{step}"
        whole = {**files, _STATE: safetensors_file(state, {**self._mark(step), "checksums": SUMS})}
        whole[SUMS] = sums_of(whole)
        self.remove_states(but=1)
        try:
            write_whole({folder / name: content for name, content in whole.items()})
        except FileError as error:
            raise FileError(f"{error}; {self.last_good()}") from error
        return folder

    def _mark(self, step: int) -> dict[str, str]:
        """Metadata that tells a checkpoint of this run and step from any other."""
        settings = json.dumps(self.record["settings"], sort_keys=True)
        return {"settings": hashlib.sha256(settings.encode()).hexdigest(), "step": str(step)}

    def remove_states(self, *, but: int = 0) -> None:
        """Remove the optimiser states of all checkpoints but the last `but`, with their checksums."""
        kept = {folder for _, folder in self._complete()[-but:]} if but else set()
        for folder in self.path.glob("checkpoint-*"):
            if _CHECKPOINT.fullmatch(folder.name) and folder not in kept:
                _remove_state(folder)

    def last(self, tell: Callable[[str], None] = lambda note: None) -> tuple[int, dict[str, Tensor]] | None:
        """Return the step and the state of the last good checkpoint, None where there is no checkpoint.

        Parameters
        ----------
        tell : called with a note for each damaged one that is passed over

        Raises
        ------
        FileError : all are damaged, or one is not of this run and step
        """
        damaged: dict[Path, str] = {}
        for step, folder in [] if self._replaces else reversed(self._complete()):
            try:
                state = self._state(folder, step)
            except DamageError as error:
                damaged[folder] = str(error)
                continue
            for each, damage in damaged.items():
                tell(f"the checkpoint {shown(each, longest=1000)} is damaged and was passed over: {damage}")
                _remove_state(each)
            return step, state
        for folder, damage in damaged.items():
            raise FileError(
                f"The checkpoint {shown(folder, longest=1000)} is damaged: {damage}; there is no good one before it: "
                f"{_ANEW}"
            )
        return None

    def _state(self, folder: Path, step: int) -> dict[str, Tensor]:
        """The state in a checkpoint, which must be of this run and step."""
        from safetensors import SafetensorError, safe_open

        require_undamaged(folder, (_STATE, *_OWN))
        try:
            with safe_open(folder / _STATE, "pt") as file:
                mark = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError) as error:
            raise DamageError(f"{_STATE} cannot be read: {shown(error)}") from error
        if mark.get("checksums") and not (folder / SUMS).exists():
            raise DamageError(f"{SUMS} is missing")
        if any(mark.get(name) != value for name, value in self._mark(step).items()):
            raise FileError(
                f"The checkpoint {shown(folder, longest=1000)} is of another run or step than its name says; {_ANEW}"
            )
        return state

    def last_step(self) -> int | None:
        """Return the step of the last complete checkpoint, None where there is none."""
        complete = self._complete()
        return complete[-1][0] if complete else None

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

    def _open_log(self) -> None:
        try:
            self._log = (self.path / _LOG).open("a", encoding="utf-8")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def rewind(self, step: int) -> int:
        """Cut the log after a step, whose later rows will be written again; return the last step that is in it."""
        path = self.path / _LOG
        end, last = 0, 0.0
        with path.open("rb") as rows:
            for row in rows:
                if not row.endswith(b"\n") or _step_of(row) > step:
                    break
                end, last = end + len(row), _step_of(row)
        self._log.truncate(end)
        return int(last)


def _remove_state(folder: Path) -> None:
    """Remove the optimiser's state from a checkpoint, and the checksums after it: without a state they mean nothing."""
    with suppress(OSError):
        (folder / _STATE).unlink(missing_ok=True)
        (folder / SUMS).unlink(missing_ok=True)


def _begun(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the run in a directory, which must be one of these settings; {} for a new run."""
    record = RUN.read(path)
    if record:
        RUN.require_same(path, completed(record["settings"], settings), settings)
    return record


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


def _written_by_a_run(path: Path) -> list[Path]:
    """What a run writes, in an order in which it can be removed file by file.

    Without the states of the optimiser nobody goes on with the rest, and no weights are left without a configuration.
    """
    folders = [each for each in path.glob("checkpoint-*") if _CHECKPOINT.fullmatch(each.name)]
    names = [path / _LOG, *(each / name for name in (_STATE, SUMS) for each in folders)]
    return [*names, *(each / name for name in _OWN for each in (*folders, path / "start", path))]
