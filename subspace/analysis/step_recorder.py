"""A trajectory recorded while a model trains, by whoever trains it: a line of JSON per step, and `track` at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from subspace.adapters import Adapter, DenseUpdate, load_adapter
from subspace.adapters.update import Factor, Update
from subspace.analysis.checkpoint_files import Checkpoint
from subspace.analysis.checkpoint_steps import Step
from subspace.analysis.resolve import Loading
from subspace.analysis.track import asked_for
from subspace.analysis.tracked_runs import tracked_run
from subspace.checkpoints.atomic_writing import may_replace, write_whole
from subspace.errors import FileError, ValueRangeError
from subspace.results.cells import plain
from subspace.results.track import Track
from subspace.results.trajectory import Run, Trajectory
from subspace.text import shown

__all__ = ["StepRecorder"]

_SCHEMA = "subspace.track.step/1"
_STARTS = (b'{"schema": "subspace.track',)


class StepRecorder:
    """Records how the adapter of a model changes: call `record` at some steps, and `finish` at the end.

    A line of JSON is appended at each step, whole or not at all: norm, what is left of the start, and phi with the step
    recorded before, of all modules together and of each. `finish` returns what `track` would say of all recorded steps,
    and writes it beside the lines.

    Parameters
    ----------
    model : what `load_adapter` takes, as a rule a model of PEFT in memory; read anew at every step
    path : of the lines, such as "track.jsonl"; the result is written to the same name with .json
    adapter_name : which adapter of the model, where it has several
    side, directions, controls, base, k, epsilon : as `track` takes them
    overwrite : replace a record that is there, in place of going on with it

    Raises
    ------
    FileError : the path holds something else than such a record, or cannot be written

    Notes
    -----
    The factors of every recorded step are held in memory in float32: the size of the adapter for each. The steps of an
    earlier part of the run, whose lines are there, are not: `finish` is of what this object has seen. Where several
    processes train one model, one of them is to record.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> path = Path(tempfile.mkdtemp(), "track.jsonl")
    >>> adapter = {"q.lora_A": np.eye(2, 6), "q.lora_B": np.zeros((5, 2))}
    >>> recorder = StepRecorder(adapter, path)
    >>> for step in range(3):
    ...     _ = recorder.record(step)
    ...     adapter["q.lora_B"] += np.eye(5, 2)
    >>> recorder.finish().runs[0].steps
    (0, 1, 2)
    >>> [json.loads(line)["step"] for line in path.read_text().splitlines()]
    [0, 1, 2]
    """

    def __init__(
        self,
        model: Any,
        path: str | os.PathLike[str],
        *,
        adapter_name: str | None = None,
        side: str | Sequence[str] = "all",
        directions: int | None = None,
        controls: str = "all",
        base: Any = None,
        k: int = 10,
        epsilon: float = 0.5,
        overwrite: bool = False,
    ) -> None:
        self.model, self.path, self.adapter_name = model, Path(path), adapter_name
        if self.path.suffix == ".json":
            raise ValueRangeError(
                f"The lines cannot have the name of the result: {shown(self.path)}; give `path` another ending, such "
                "as .jsonl"
            )
        self._asked = asked_for(side, directions, None, controls, "total", k, epsilon, base)
        self._steps: dict[int, Adapter] = {}
        for each in (self.path, self.path.with_suffix(".json")):
            may_replace(each, (*_STARTS, b"")) if overwrite else may_replace(each, _STARTS)
        if overwrite:
            write_whole({self.path: b""})

    def record(self, step: int) -> dict[str, Any]:
        """Append the line of a step, and return it as it is written; of a step twice the second counts.

        Raises
        ------
        FileError : the line cannot be written
        SubspaceError : the model has no adapter
        """
        adapter = _copied(load_adapter(self.model, adapter_name=self.adapter_name))
        before = max((each for each in self._steps if each < step), default=None)
        chosen = dict.fromkeys([next(iter(self._steps), step), step if before is None else before])
        chosen.pop(step, None)
        run = self._followed({**{n: self._steps[n] for n in chosen}, step: adapter})
        self._steps[step] = adapter
        line = _line(run, step, before)
        self._append(json.dumps(plain(line), allow_nan=False) + "\n")
        return line

    def finish(self) -> Track:
        """What `track` says of all recorded steps; written to the record's name with .json.

        Raises
        ------
        InconclusiveError : nothing was recorded, or nothing was trained
        """
        result = tracked_run(
            [_checkpoint(step, adapter) for step, adapter in sorted(self._steps.items())],
            self._asked,
            Loading(),
        )
        write_whole({self.path.with_suffix(".json"): (result.to_json() + "\n").encode()})
        return result

    def _followed(self, steps: dict[int, Adapter]) -> Run:
        checkpoints = [_checkpoint(step, adapter) for step, adapter in sorted(steps.items())]
        return tracked_run(checkpoints, self._asked, Loading(), trained=False).runs[0]

    def _append(self, line: str) -> None:
        """Add a line in one write, after a line that was cut short by a crash has been taken off."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                _mend(file)
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(
                f"Cannot write {shown(self.path, longest=1000)}: {error.strerror}; make room, or give another `path`"
            ) from error


def _mend(file: Any) -> None:
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    if whole < end:
        file.truncate(whole)


def _checkpoint(step: int, adapter: Adapter) -> Checkpoint:
    return Checkpoint(f"step {step} in memory", Step(step, "step", "given"), "the model in memory", adapter)


def _copied(adapter: Adapter) -> Adapter:
    """An adapter whose numbers stay as they are now, however the model goes on."""
    return replace(adapter, updates={name: _update(update) for name, update in adapter.items()}, tensors=None)


def _update(update: Update) -> Update:
    if isinstance(update, DenseUpdate):
        return replace(update, matrix=Factor.of(update.matrix.load().copy()))
    return replace(update, A_factor=Factor.of(update.A.copy()), B_factor=Factor.of(update.B.copy()))


def _line(run: Run, step: int, before: int | None) -> dict[str, Any]:
    """What is known of a step while the run goes on: nothing of its end."""
    n = len(run.checkpoints) - 1
    return {
        "schema": _SCHEMA,
        "step": step,
        "before": before,
        "start": run.start,
        "total": [_values(each, n, before) for each in run.total],
        "modules": [_values(each, n, before) for each in run.modules],
    }


def _values(each: Trajectory, n: int, before: int | None) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(each, name) for name in ("module", "side", "init", "directions")}
    at = n - 1  # where phi with the next is that of the step before with this one
    known = before is not None and n > 0
    values |= {
        "from_before": each.to_next[at] if known else None,
        "from_before_isotropic": each.to_next_isotropic[at] if known else None,
        "from_before_control": each.to_next_control[at] if known else None,
        "from_start": each.from_start[n],
        "from_start_isotropic": each.from_start_isotropic[n],
        "from_start_control": each.from_start_control[n],
        "moved": each.moved[n],
        "cosine_before": each.cosine[at] if known else None,
        "norm": each.norm[n],
    }
    if each.intruders:
        values["intruders"] = each.intruders[n]
    return values
