"""Measures on held-out data before, during and after a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from subspace.training.loop import evaluate
from subspace.training.recipe import Recipe
from subspace.training.tasks import Task

__all__ = ["RunMeasures"]


class RunMeasures:
    """Measures a model on held-out data, at every n-th step and whenever it is asked to.

    Parameters
    ----------
    model : in training, which is left as it was
    task : gives the measures
    recipe : for its `dtype`
    every : steps between measures; 0 for none but those that are asked for
    tell : called with a note for the user
    """

    def __init__(
        self, model: nn.Module, task: Task, recipe: Recipe, every: int, tell: Callable[[str], None]
    ) -> None:
        self._model, self._task, self._recipe, self._every, self._tell = model, task, recipe, every, tell
        self._last: tuple[int, dict[str, float]] | None = None

    def at(self, step: int) -> dict[str, float]:
        """Return the measures of a model that has done `step` steps, once measured for each."""
        if self._last is None or self._last[0] != step:
            self._last = step, evaluate(self._model, self._task, self._recipe)
        return self._last[1]

    def entry(self, step: int) -> dict[str, Any]:
        """Return the measures of a step for its row of the log, None where not finite, and report them in a note."""
        found = self.at(step) if self._every and step % self._every == 0 else {}
        if not found:
            return {}
        values = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.items())
        self._tell(f"step {step}, held out: {values}")
        return {"held_out": {name: v if math.isfinite(v) else None for name, v in found.items()}}
