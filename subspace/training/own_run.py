"""A run of a model and batches of one's own: what it is, and that it leaves the caller's torch as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.injection import adapted
from subspace.training.method import Method
from subspace.training.methods.lora import LoRA
from subspace.training.module_patterns import as_patterns
from subspace.training.own_batches import Batches, Loss, OwnTask
from subspace.training.own_training import OwnRun, OwnTraining
from subspace.training.recipe import Recipe
from subspace.training.run import Progress
from subspace.training.run_folder import RunFolder
from subspace.training.wrappers import unwrapped

__all__ = ["train_model"]

_OF_TEXTS = ("batch", "length", "data_seed", "held_out", "epochs")


def train_model(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    method: Method | None = None,
    targets: Sequence[str] = (),
    keep: Sequence[str] = (),
    steps: int = 200,
    lr: float | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    save_every: int = 100,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda note: None,
    **recipe: Any,
) -> OwnRun:
    """Return the finished run of a model; see `subspace.training.own_models.train`."""
    inside = unwrapped(model)
    method = LoRA(seed=seed) if method is None and targets else method
    _require_sensible(inside, method, keep, save_every, recipe)
    peak = (Recipe.lr if method is None else method.lr) if lr is None else lr
    whole = Recipe(steps=steps, lr=peak, seed=seed, **recipe)
    task = OwnTask(Batches(batches, seed=seed), loss, None if model is inside else model)
    training = OwnTraining(inside, task, whole, method, as_patterns(targets), as_patterns(keep), tell)
    settings = _settings(training, loss)
    opened = nullcontext() if out is None else RunFolder.opened(Path(out), settings, overwrite=overwrite)
    with _aside(inside), opened as folder:
        training.folder = folder
        training.record = {"settings": settings} if folder is None else folder.record
        return training.run(save_every, progress or (lambda *_: None), stopping)


def _require_sensible(
    model: nn.Module, method: Method | None, keep: Sequence[str], save_every: int, recipe: dict[str, Any]
) -> None:
    there = bool(adapted(model))
    if there and method is not None:
        raise ValueRangeError(
            "The model has an adapter already: leave out `method` and `targets` to train that one, or take it out with "
            "remove(model); to go on with an interrupted run, make the model anew"
        )
    if not there and method is None:
        raise ValueRangeError(
            "The model has no adapter to train: give `targets`, or `method` (Full() trains the model itself)"
        )
    if keep and method is None:
        raise ValueRangeError("`keep` is for a new adapter, and the model has one already; give it to inject")
    if save_every < 0:
        raise ValueRangeError(f"`save_every` is negative: {save_every}; give 0 or more")
    if wrong := [name for name in _OF_TEXTS if name in recipe]:
        raise ValueRangeError(
            f"`{wrong[0]}` is for the texts of a Job, not for batches of your own; leave it out"
        )


def _settings(training: OwnTraining, loss: Loss | None) -> dict[str, Any]:
    """What must be the same for a run to go on, as JSON has it."""
    training.batches.at(0)
    recipe = {name: value for name, value in asdict(training.recipe).items() if name not in _OF_TEXTS}
    name = getattr(loss, "__qualname__", None) or type(loss).__qualname__
    values = {
        "model": type(training.model).__name__,
        "method": training.method.document() if training.method else None,
        "targets": list(training.targets),
        "keep": list(training.keep),
        "loss": None if loss is None else shown(name),
        **recipe,
        "data_sha256": training.batches.sha256(),  # of the first batch
    }
    found: dict[str, Any] = json.loads(json.dumps(values, default=lambda value: value.item()))
    return found


@contextmanager
def _aside(model: nn.Module) -> Iterator[None]:
    """Put back torch's random state and threads, and the mode of every module."""
    threads, modes = torch.get_num_threads(), [(each, each.training) for each in model.modules()]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.set_num_threads(threads)
        for module, training in modes:
            module.training = training
