"""The forward passes over some tokens of some data, each with its loss: of a task, or of batches of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from subspace.training.batches import place_of
from subspace.training.data.order import permutation
from subspace.training.outcomes import held_examples
from subspace.training.own_batches import Loss, OneBatch, OwnTask
from subspace.training.tasks import Halves, NextToken

__all__ = ["Pass", "own_passes", "passes_of"]


@dataclass(frozen=True)
class Pass:
    """One batch.

    Attributes
    ----------
    content : what the model is given, for a digest
    forward : a forward pass of a model
    loss : the same with its mean loss
    """

    content: Any
    forward: Callable[[nn.Module], object]
    loss: Callable[[nn.Module], Tensor]


def passes_of(task: Any, tokens: int) -> list[Pass]:
    """Return forward passes over about so many tokens of what a task holds out, evenly chosen.

    Parameters
    ----------
    task : from `task_of`, of which everything that is to be read is held out
    tokens : how many

    Raises
    ------
    ValueRangeError : nothing is held out
    """
    if isinstance(task, NextToken):
        windows = held_examples(task, -(-tokens // task.length))
        return [_of_windows(task, part) for part in windows.split(task.batch)]
    numbers = held_examples(task).tolist()
    of_rows = hasattr(task, "rows")
    size = {n: task.rows[n].size if of_rows else len(task.tokens[n]) for n in numbers}
    chosen = sorted(_enough(numbers, size, tokens), key=lambda n: (size[n], n))
    one = _of_row_numbers if of_rows else _of_text_numbers
    return [one(task, chosen[begin : begin + task.batch]) for begin in range(0, len(chosen), task.batch)]


def _enough(numbers: list[int], size: dict[int, int], tokens: int) -> list[int]:
    """So many of the examples, drawn in the same order every time, that they have so many tokens."""
    drawn = [numbers[place] for place in permutation(len(numbers), seed=0)]
    total = np.cumsum([size[n] for n in drawn])
    return drawn[: int(np.searchsorted(total, tokens)) + 1]


def _of_windows(task: NextToken, windows: Tensor) -> Pass:
    def loss(model: nn.Module) -> Tensor:
        return task._loss(model, windows.to(place_of(model)))

    def forward(model: nn.Module) -> object:
        return loss(model) if isinstance(task, Halves) else model(windows[:, :-1].to(place_of(model)))

    return Pass(windows, forward, loss)


def _of_text_numbers(task: Any, numbers: list[int]) -> Pass:
    return Pass(
        [list(task.tokens[n]) for n in numbers],
        lambda model: task._logits(model, numbers),
        lambda model: functional.cross_entropy(*task._logits(model, numbers)),
    )


def _of_row_numbers(task: Any, numbers: list[int]) -> Pass:
    rows = [task.rows[n] for n in numbers]
    return Pass(
        [list(row.ids) for row in rows],
        lambda model: task._learned(model, rows),
        lambda model: functional.cross_entropy(*task._learned(model, rows)),
    )


def own_passes(batches: Iterable[Any], loss: Loss | None) -> Iterator[Pass]:
    """Yield a forward pass for each batch of one's own.

    Parameters
    ----------
    batches : as `subspace.training.train` takes them
    loss : of output and target; None: the batch is what the model is called with
    """
    for batch in batches:
        task = OwnTask(OneBatch(batch), loss)

        def forward(model: nn.Module, task: OwnTask = task) -> object:
            return task.output(model, 0)

        def mean_loss(model: nn.Module, task: OwnTask = task) -> Tensor:
            return task.loss(model, 0)

        yield Pass(batch, forward, mean_loss)
