"""Everything that decides a training run, beside the model, the data and the method."""

from __future__ import annotations

import math
from dataclasses import dataclass

from subspace.errors import ValueRangeError
from subspace.text import shown

__all__ = ["Recipe"]

_SCHEDULES = ("cosine", "linear", "constant")
_DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Two runs of one recipe, model and data give the same numbers.

    Attributes
    ----------
    steps : of the optimiser
    batch : examples (or windows) a micro-batch
    accumulate : micro-batches a step, whose gradients are averaged
    length : tokens of a window or the most of an example
    lr : peak learning rate
    schedule : "cosine" or "linear" to zero, or "constant", after a linear warm-up
    warm_up : part of the steps, in [0, 1)
    weight_decay : of AdamW, on matrices alone
    clip : largest norm of the gradient; 0 for none
    dtype : "float32", "bfloat16" (autocast), or "auto": bfloat16 where the processor multiplies it faster
    seed : of dropout and of a head that starts at random; that of a LoRA start is the method's
    data_seed : of the order of examples
    held_out : part of the data that is kept apart to measure on, the same for every seed
    """

    steps: int = 200
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

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "length"):
            if getattr(self, name) < 1:
                raise ValueRangeError(f"{name} must be at least 1: got {getattr(self, name)}")
        for name in ("lr", "weight_decay", "clip"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueRangeError(f"{name} must be finite and not negative: got {value}")
        for name, least in (("warm_up", 1.0), ("held_out", 0.5)):
            if not 0 <= getattr(self, name) < least:
                raise ValueRangeError(f"{name} must be in [0, {least:g}): got {getattr(self, name)}")
        for name in ("seed", "data_seed"):
            if not 0 <= getattr(self, name) < 2**63:
                raise ValueRangeError(f"{name} must be in [0, 2**63): got {getattr(self, name)}")
        for name, known in (("schedule", _SCHEDULES), ("dtype", _DTYPES)):
            if getattr(self, name) not in known:
                raise ValueRangeError(
                    f"{name} must be one of {', '.join(known)}: got {shown(getattr(self, name))}"
                )

    def rate(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0.

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
