"""Everything that decides a training run besides the model, the data and the method."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from subspace.errors import ValueRangeError
from subspace.text import shown

__all__ = ["Recipe"]

_SCHEDULES = ("cosine", "linear", "constant")
_DTYPES = ("auto", "float32", "bfloat16")
_STEPS = 200


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Two runs of one recipe, model and data give the same numbers.

    Attributes
    ----------
    steps : number of optimiser steps, where no `epochs` are given
    batch : examples, or windows of text, per micro-batch
    accumulate : micro-batches per step, whose gradients are averaged
    length : tokens per window of text, and the most of an example with a label or a completion
    lr : peak learning rate
    schedule : of the learning rate after a linear warm-up: "cosine" or "linear" to zero, or "constant"
    warm_up : fraction of the steps in which the learning rate rises, in [0, 1)
    weight_decay : of AdamW, on matrices only
    clip : largest norm of the gradient; 0 for none
    dtype : "float32", "bfloat16" (autocast), or "auto": bfloat16 where the hardware has instructions for it
    seed : of dropout and of a head that starts at random; that of a LoRA start is the method's
    data_seed : of the order of the examples
    held_out : fraction of the data that is held out for evaluation, the same for every seed; in [0, 0.5)
    epochs : how often the examples that are trained on are seen, in place of `steps`; see `with_steps`
    """

    steps: int = _STEPS
    batch: int = 16
    accumulate: int = 1
    length: int = 128
    lr: float = 2e-3
    schedule: str = "cosine"
    warm_up: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    dtype: str = "auto"
    seed: int = 0
    data_seed: int = 0
    held_out: float = 0.05
    epochs: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "length"):
            if getattr(self, name) < 1:
                raise ValueRangeError(f"Invalid `{name}` {getattr(self, name)}: it must be at least 1")
        for name in ("lr", "weight_decay", "clip"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueRangeError(f"Invalid `{name}` {value}: it must be finite and not negative")
        for name, least in (("warm_up", 1.0), ("held_out", 0.5)):
            if not 0 <= getattr(self, name) < least:
                raise ValueRangeError(f"Invalid `{name}` {getattr(self, name)}: it must be in [0, {least:g})")
        for name in ("seed", "data_seed"):
            if not 0 <= getattr(self, name) < 2**63:
                raise ValueRangeError(f"Invalid `{name}` {getattr(self, name)}: it must be in [0, 2**63)")
        for name, known in (("schedule", _SCHEDULES), ("dtype", _DTYPES)):
            if getattr(self, name) not in known:
                raise ValueRangeError(
                    f"Invalid `{name}` '{shown(getattr(self, name))}': it must be one of {', '.join(known)}"
                )

        self._require_epochs()

    def _require_epochs(self) -> None:
        if self.epochs is None:
            return
        if not (math.isfinite(self.epochs) and self.epochs > 0):
            raise ValueRangeError(f"Invalid `epochs` {self.epochs}: it must be finite and positive")
        if self.steps != _STEPS:
            raise ValueRangeError(
                f"Both `steps` {self.steps} and `epochs` {self.epochs:g} are given; leave one of them out"
            )

    def with_steps(self, examples: int) -> Recipe:
        """Return the recipe with `epochs` turned into ``steps = ceil(epochs * examples / (batch * accumulate))``.

        Parameters
        ----------
        examples : that are trained on; of a text, the windows that it has side by side

        Examples
        --------
        >>> Recipe(epochs=3, batch=8).with_steps(100).steps
        38
        """
        if self.epochs is None:
            return self
        # as written: a float such as 1.1 is a little more, and 1.1 * 10 would be 12 steps
        seen = Fraction(str(self.epochs)) * examples
        return replace(self, steps=max(1, math.ceil(seen / (self.batch * self.accumulate))), epochs=None)

    def rate(self, step: int) -> float:
        """Return the learning rate of step `step`, counted from 0.

        Examples
        --------
        >>> recipe = Recipe(steps=100, lr=1.0, warm_up=0.1)
        >>> recipe.rate(0), recipe.rate(9), round(recipe.rate(55), 3), round(recipe.rate(99), 3)
        (0.1, 1.0, 0.5, 0.0)
        """
        warm = round(self.warm_up * self.steps)
        if step < warm:
            return self.lr * (step + 1) / warm
        along = (step - warm) / max(1, self.steps - warm)
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 - along if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * along)))
