"""What a run would train, layer by layer, found without training anything or writing anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.errors import SubspaceError
from subspace.training.job import Job
from subspace.training.layer_states import LayerTable, layer_table
from subspace.training.loop import precision

if TYPE_CHECKING:
    from subspace.training.run import _Training

__all__ = ["dry_run", "layers_of"]


def dry_run(job: Job, *, tell: Callable[[str], None] = lambda note: None) -> LayerTable:
    """Return the layers of the model of a job, each adapted, kept, trained or frozen; nothing is trained or written.

    Parameters
    ----------
    job : what would be trained
    tell : called with each note for the user, one sentence

    Raises
    ------
    SubspaceError : what `train` would refuse before its first step
    """
    import torch

    from subspace.training.data import load_examples
    from subspace.training.run import _Training
    from subspace.training.run_checks import not_computed
    from subspace.training.run_folder import RunFolder

    examples = load_examples(
        job.data, text_column=job.text_column, label_column=job.label_column, labels=job.labels
    )
    folder = RunFolder(Path(os.devnull), {})  # none is made before something is written
    training = _Training(job, examples, folder, tell)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            training._files(start=True)
            return layers_of(training)
    except (RuntimeError, IndexError) as error:
        if isinstance(error, SubspaceError):
            raise
        raise not_computed(error, training.recipe, job.model, folder.last_good()) from error


def layers_of(training: _Training) -> LayerTable:
    """Return the layers of the model of a run, with the operations of the forward pass of its first micro-batch.

    Parameters
    ----------
    training : the run, before its first step
    """

    def forward() -> None:
        with precision(training.model, training.recipe.dtype):
            training.task.loss(training.model, 0)

    return layer_table(training.model, forward)
