"""What a model does on each example that a task holds out: its loss, and what it predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.errors import ValueRangeError
from subspace.training.loop import precision
from subspace.training.tasks import Halves, NextToken, logits_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Outcomes", "all_held_out", "held_examples", "outcomes"]

Progress = Callable[[int], None]

_MOST_WINDOWS = 256  # as training measures them


@dataclass(frozen=True)
class Outcomes:
    """What a model does on n examples: windows of text, texts with a class, or texts of which a part is to be written.

    Attributes
    ----------
    losses : (n,) mean cross-entropy of each example, in nats per token, or per text with a class
    weights : (n,) how many predictions each example has: its tokens, 1 of a text with a class
    right : (n,) how many of them were right
    labels, predicted : (n,) classes of texts as numbers; None for others
    per_byte : bytes per token on average; None where it is not known
    """

    losses: NDArray[np.float64]
    weights: NDArray[np.float64]
    right: NDArray[np.float64]
    labels: NDArray[np.int64] | None = None
    predicted: NDArray[np.int64] | None = None
    per_byte: float | None = None


def all_held_out(task: Any) -> Any:
    """Return the same task with all of its data held out."""
    if isinstance(task, NextToken):
        return replace(task, held=task.train)
    return replace(task, apart=np.sort(np.concatenate([task.kept, task.apart])))


def held_examples(task: Any, most: int | None = None) -> Any:
    """Return the held-out examples of a task: windows (n, tokens) in the order of the text, or numbers of texts.

    Parameters
    ----------
    task : from `task_of`
    most : how many at most, evenly chosen; by default 256 windows, as training measures them, and all texts

    Raises
    ------
    ValueRangeError : nothing is held out
    """
    if isinstance(task, NextToken):
        n = len(task.held) // (task.length + 1)
        every: Any = task.held[: n * (task.length + 1)].view(n, task.length + 1)
        most = most or _MOST_WINDOWS
    else:
        every = torch.as_tensor(np.asarray(task.apart, dtype=np.int64))
    if not len(every):
        raise ValueRangeError(
            "Nothing to evaluate on: the held-out part is shorter than one window, or empty; give more `data`, a "
            "smaller `length`, or `held_out` as 1 for all of it"
        )
    few = most is None or len(every) <= most
    return (every if few else every[torch.linspace(0, len(every) - 1, most).long()]).long()


@torch.no_grad()
def outcomes(
    model: nn.Module,
    task: Any,
    examples: Any,
    *,
    dtype: str = "float32",
    progress: Progress = lambda done: None,
) -> Outcomes:
    """Return what a model does on each example, in evaluation mode; the mode of every module is put back.

    Parameters
    ----------
    model : which is left as it was
    task : of which the examples are
    examples : from `held_examples`
    dtype : as a `Recipe` has it
    progress : called with how many examples are done
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with precision(model, dtype):
            return _kind(task)(model, task, examples, progress)
    finally:
        for module, training in modes:
            module.training = training


def _kind(task: Any) -> Callable[..., Outcomes]:
    if isinstance(task, NextToken):
        return _of_windows
    return _of_rows if hasattr(task, "rows") else _of_classes


def _of_windows(model: nn.Module, task: NextToken, windows: Tensor, progress: Progress) -> Outcomes:
    """Each window, predicted without what comes before it."""
    losses, right, length = [], [], 0
    for batch in windows.split(task.batch):
        logits, wanted = _predictions(model, task, batch.to(next(model.parameters()).device))
        each = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        losses.append(each.view(wanted.shape).double().mean(1))
        right.append((logits.argmax(-1) == wanted).sum(1).double())
        length = wanted.shape[1]
        progress(sum(map(len, losses)))
    found, correct = (torch.cat(parts).cpu().numpy() for parts in (losses, right))
    return Outcomes(found, np.full(len(found), float(length)), correct, per_byte=task.per_byte)


def _predictions(model: nn.Module, task: NextToken, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, tokens, vocabulary), and what they should predict (n, tokens)."""
    if isinstance(task, Halves):
        half = task.length // 2 or 1
        first, second = windows[:, :half], windows[:, half:].contiguous()
        output = model(input_ids=first, attention_mask=torch.ones_like(first), labels=second)
        return logits_of(output), second
    return logits_of(model(windows[:, :-1])), windows[:, 1:]


def _of_classes(model: nn.Module, task: Any, chosen: Tensor, progress: Progress) -> Outcomes:
    """Each text with a class, in the order of the data."""
    texts, n = chosen.tolist(), len(chosen)
    losses, labels, predicted = np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64)
    done = 0
    for places in _alike([len(task.tokens[i]) for i in texts], 4 * task.batch):
        logits, wanted = task._logits(model, [texts[place] for place in places])
        losses[places] = functional.cross_entropy(logits, wanted, reduction="none").double().cpu().numpy()
        labels[places], predicted[places] = wanted.cpu().numpy(), logits.argmax(-1).cpu().numpy()
        progress(done := done + len(places))
    return Outcomes(losses, np.ones(n), (labels == predicted).astype(np.float64), labels, predicted)


def _of_rows(model: nn.Module, task: Any, chosen: Tensor, progress: Progress) -> Outcomes:
    """Each text of which a part is to be written; the rows of one conversation are one example."""
    rows = [task.rows[i] for i in chosen.tolist()]
    numbers, places = np.unique([row.example for row in rows], return_inverse=True)
    sums = np.zeros((3, len(numbers)))
    done = 0
    for batch in _alike([row.size for row in rows], task.batch):
        logits, wanted = task._learned(model, [rows[i] for i in batch])
        losses = functional.cross_entropy(logits, wanted, reduction="none").double().cpu().numpy()
        right = (logits.argmax(-1) == wanted).double().cpu().numpy()
        counts = [sum(rows[i].learned[0 if task.paired else 1 :]) for i in batch]
        owners = np.repeat(places[batch], counts)
        for total, values in zip(sums, (losses, right, np.ones_like(losses)), strict=True):
            np.add.at(total, owners, values)
        progress(done := done + len(batch))
    return Outcomes(sums[0] / sums[2], sums[2], sums[1])


def _alike(sizes: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Places of examples of similar length together, so that there is little padding."""
    order = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for begin in range(0, len(order), batch):
        yield order[begin : begin + batch]
