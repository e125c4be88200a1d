"""How many threads to train with: one, unless all cores are measured to be faster."""

from __future__ import annotations

import os
import time

import torch
from torch import nn

from subspace.training.loop import precision
from subspace.training.recipe import Recipe
from subspace.training.seeds import start_seed
from subspace.training.tasks import Task

__all__ = ["faster_threads"]

_WORTH = 1.2  # less is the noise of one measurement
_SMALL = 4e9  # operations of a forward pass


def faster_threads(model: nn.Module, task: Task, recipe: Recipe) -> int:
    """Return 1, or the number of cores that this process may use where a step with all of them takes less time.

    Measured on one micro-batch each; no parameter changes.

    Parameters
    ----------
    model : on its device
    task : gives the loss
    recipe : for the size of a micro-batch and its `dtype`

    Notes
    -----
    A small model always has 1: a measurement can differ from run to run, and the last bits of a result differ with the
    number of threads. Small products on several threads wait for one another and for whatever else runs: two threads
    under contention have been measured to be up to 17 times slower than one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    work = 2.0 * sum(p.numel() for p in model.parameters()) * recipe.batch * recipe.length
    if cores == 1 or work < _SMALL or next(model.parameters()).device.type != "cpu":
        return 1
    before = torch.get_num_threads()
    try:
        seconds = {n: _seconds(model, task, recipe, n) for n in (1, cores)}
    finally:
        torch.set_num_threads(before)
        model.zero_grad()
    return cores if seconds[cores] * _WORTH < seconds[1] else 1


def _seconds(model: nn.Module, task: Task, recipe: Recipe, threads: int) -> float:
    """The lesser of two forward and backward passes, the first of which also warms up."""
    torch.set_num_threads(threads)
    taken = []
    for _ in range(2):
        torch.manual_seed(start_seed(recipe.seed, "step", 0))
        began = time.perf_counter()
        with precision(model, recipe.dtype):
            loss = task.loss(model, 0)
        if loss.requires_grad:
            loss.backward()
        taken.append(time.perf_counter() - began)
    return min(taken)
