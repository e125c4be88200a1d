"""A callback of transformers' Trainer that records how a PEFT adapter changes; importing it imports transformers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from subspace.analysis.step_recorder import StepRecorder
from subspace.errors import FormatError, ValueRangeError

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise FormatError(
        "The package transformers is not installed; it is needed for TrackCallback: pip install 'lora-subspace[hf]', "
        "or call a `StepRecorder` from a loop of your own"
    ) from error

if TYPE_CHECKING:
    from subspace.results.track import Track

__all__ = ["TrackCallback"]


class TrackCallback(TrainerCallback):  # type: ignore[misc]
    """Records the adapter before the first step, at every save or every n steps, and at the end.

    ``Trainer(model, ..., callbacks=[subspace.TrackCallback("track.jsonl")])``

    Parameters
    ----------
    path : of the lines, one for each recorded step; what `track` says of all of them gets the same name with .json
    every : steps between two records; None: at every save
    settings : further keywords of `StepRecorder`, such as side, base or adapter_name

    Attributes
    ----------
    result : Track
        Of all recorded steps, once the training has ended; None before.

    Notes
    -----
    Of several processes the first records. A model whose parameters are spread over them (FSDP, ZeRO-3) has no whole
    adapter in any: track the checkpoints that it saves.

    References
    ----------
    transformers, trainer_callback.py: ``TrainerCallback``.
    """

    def __init__(self, path: str | os.PathLike[str], *, every: int | None = None, **settings: Any) -> None:
        if every is not None and every < 1:
            raise ValueRangeError(
                f"Every {every} steps is too often: give `every` a whole number of at least 1, or none"
            )
        self.path, self.every, self.settings = path, every, settings
        self.result: Track | None = None
        self._recorder: StepRecorder | None = None
        self._recorded = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Record the start, or the step that the training goes on from."""
        if state.is_world_process_zero:
            self._recorder = StepRecorder(model, self.path, **self.settings)
            self._recorded = -1
            self._record(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record every n-th step."""
        if self.every is not None and state.global_step % self.every == 0:
            self._record(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record what was saved."""
        if self.every is None:
            self._record(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the end, and write what `track` says of all steps."""
        if self._recorder is not None:
            self._record(state.global_step)
            if state.global_step:
                self.result = self._recorder.finish()

    def _record(self, step: int) -> None:
        if self._recorder is not None and step != self._recorded:
            self._recorder.record(step)
            self._recorded = step
