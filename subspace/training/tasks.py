"""What is learned: the next token, the second half of a text from its first, or the class of a text.

A task gives the loss of any micro-batch of any step as a pure function of its numbers and the data seed, so that a run
that resumes needs no state of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.errors import ValueRangeError
from subspace.training.data import epoch_batch, split, split_stream, window_starts
from subspace.training.models.scrambled_tokens import with_scrambled_tokens

if TYPE_CHECKING:
    from subspace.training.data import Examples
    from subspace.training.models import Base
    from subspace.training.recipe import Recipe

__all__ = ["Classes", "Halves", "NextToken", "Task", "task_of"]

_SPLIT_SEED = 0  # the same examples are held out in every run, or runs could not be compared
_MOST_WINDOWS = 256


class Task(Protocol):
    """What the training loop needs of a task."""

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the mean loss of micro-batch `step`, counted from 0."""

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Return measures on held-out data by name, {} where nothing was held out."""


def logits_of(output: Any) -> Tensor:
    """Return the logits of a model's output, which may be a tensor or a transformers output, in float32."""
    found: Tensor = output if isinstance(output, Tensor) else output.logits
    return found.float()


@dataclass
class NextToken:
    """Predict each token from those before it.

    Attributes
    ----------
    train, held : tokens to train on and held-out ones, one-dimensional int64; `held` may be empty
    batch : windows per micro-batch
    length : tokens that each window predicts
    seed : of the order of the windows
    per_byte : bytes per token on average, by which a loss is expressed in bits per byte
    """

    train: Tensor
    held: Tensor
    batch: int
    length: int
    seed: int
    per_byte: float

    @classmethod
    def of(
        cls,
        tokens: Sequence[int],
        n_bytes: int,
        *,
        batch: int,
        length: int,
        seed: int,
        held: float | Sequence[int],
    ) -> Any:
        """Return the task of a stream of tokens, of which every k-th piece is held out, or another stream.

        Parameters
        ----------
        tokens : ids
        n_bytes : of the text that they stand for, or that those held out do if they are a stream of their own
        batch, length, seed : see the attributes
        held : fraction that is held out, in [0, 0.5], or the ids themselves

        Raises
        ------
        ValueRangeError : the stream is too short
        """
        stream = torch.as_tensor(np.asarray(tokens, dtype=np.int64))
        if isinstance(held, Sequence):
            own = torch.as_tensor(np.asarray(held, dtype=np.int64))
            return replace(
                cls.of(tokens, n_bytes, batch=batch, length=length, seed=seed, held=0),
                held=_long_enough(own, length),
                per_byte=n_bytes / len(own),
            )
        kept, apart = split_stream(len(stream), held) if held else ([slice(None)], [])
        train = torch.cat([stream[part] for part in kept])
        if len(train) <= length:
            raise ValueRangeError(
                f"The text is too short: {len(train)} tokens to train on are no more than one window of {length}; give "
                "more text, or a smaller `length`"
            )
        held_out = torch.cat([stream[part] for part in apart]) if apart else stream[:0]
        return cls(train, held_out, batch, length, seed, n_bytes / len(stream))

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the mean cross-entropy in nats per token of micro-batch `step`."""
        starts = window_starts(len(self.train), self.length + 1, self.batch, step, seed=self.seed)
        windows = self.train[torch.from_numpy(starts)[:, None] + torch.arange(self.length + 1)]
        return self._loss(model, windows.to(_device(model)))

    def _loss(self, model: nn.Module, windows: Tensor) -> Tensor:
        logits = logits_of(model(windows[:, :-1]))
        return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Return the ``loss`` in nats per token and ``bits_per_byte``, over windows that begin without context."""
        windows = _windows(self.held, self.length + 1)
        if not len(windows):
            return {}
        loss = _mean(
            (self._loss(model, part.to(_device(model))), len(part)) for part in windows.split(self.batch)
        )
        return {"loss": loss, "bits_per_byte": loss / math.log(2) / self.per_byte}


@dataclass
class Halves(NextToken):
    """Predict the second half of a window from its first, for models of an encoder and a decoder.

    References
    ----------
    Raffel et al., arXiv 1910.10683, section 3.2.3 (prefix language modelling).
    """

    def _loss(self, model: nn.Module, windows: Tensor) -> Tensor:
        half = self.length // 2 or 1
        first, second = windows[:, :half], windows[:, half:]
        loss: Tensor = model(
            input_ids=first, attention_mask=torch.ones_like(first), labels=second.contiguous()
        ).loss
        return loss.float()


@dataclass
class Classes:
    """Predict the class of a text.

    Attributes
    ----------
    tokens : ids of each text, no more than the model takes
    labels : class of each text
    batch : examples per micro-batch
    seed : of the order of the examples
    pad : id of padding
    kept, apart : indices of the examples that are trained on, and of those held out
    """

    tokens: Sequence[Sequence[int]]
    labels: Sequence[int]
    batch: int
    seed: int
    pad: int
    kept: Any
    apart: Any

    @classmethod
    def of(
        cls,
        tokens: Sequence[Sequence[int]],
        labels: Sequence[int],
        *,
        batch: int,
        seed: int,
        pad: int,
        held: float | Sequence[int],
    ) -> Classes:
        """Return the task of labelled texts, a fraction `held` of each class held out, or those of these indices."""
        kept, apart = split(len(tokens), held, seed=_SPLIT_SEED, labels=labels)
        return cls(tokens, labels, batch, seed, pad, kept, apart)

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the mean cross-entropy in nats per text of micro-batch `step`."""
        chosen = self.kept[epoch_batch(len(self.kept), self.batch, step, seed=self.seed)]
        logits, labels = self._logits(model, chosen)
        return functional.cross_entropy(logits, labels)

    def _logits(self, model: nn.Module, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self.tokens[i] for i in chosen]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.as_tensor(row)
            mask[n, : len(row)] = 1
        place = _device(model)
        logits = logits_of(model(input_ids=ids.to(place), attention_mask=mask.to(place)))
        return logits, torch.as_tensor([self.labels[i] for i in chosen], device=place)

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Return ``loss``, ``accuracy`` and ``majority``, the share of the most frequent class."""
        if not len(self.apart):
            return {}
        # texts of similar length together, so that there is little padding
        order = sorted(self.apart, key=lambda i: len(self.tokens[i]))
        loss, right = 0.0, 0
        for begin in range(0, len(order), 4 * self.batch):
            logits, labels = self._logits(model, order[begin : begin + 4 * self.batch])
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(-1) == labels).sum())
        counts = np.bincount([self.labels[i] for i in order])
        n = len(order)
        return {"loss": loss / n, "accuracy": right / n, "majority": int(counts.max()) / n}


def task_of(base: Base, examples: Examples, recipe: Recipe) -> Task:
    """Return what a base learns from examples: their classes if they have any, else the next token.

    Parameters
    ----------
    base : the model with its tokenizer
    examples : texts, with or without labels
    recipe : for batch, length, seed and the fraction that is held out

    Raises
    ------
    ValueRangeError : too little to train on
    """
    common: dict[str, Any] = {"batch": recipe.batch, "held": recipe.held_out, "seed": recipe.data_seed}
    if examples.scrambled_tokens:
        base = with_scrambled_tokens(base)
    trained = examples
    examples, apart = trained.joined()
    common["held"] = apart or recipe.held_out
    if base.task == "classify":
        tokens = [base.encode(text) for text in examples.texts]
        return Classes.of(tokens, examples.labels or (), pad=base.pad, **common)
    kind = Halves if base.task == "seq2seq" else NextToken
    stream, n_bytes = _stream(base, trained.texts)
    if trained.held_out is not None:
        common["held"], n_bytes = _stream(base, trained.held_out.texts)
    task: Task = kind.of(stream, n_bytes, length=recipe.length, **common)
    return task


def _stream(base: Base, texts: Sequence[str]) -> tuple[list[int], int]:
    """Texts as one stream of tokens, with a blank line between two, and the number of bytes that it stands for."""
    between = base.encode("\n\n")
    stream: list[int] = []
    for n, text in enumerate(texts):
        stream += (between if n else []) + base.encode(text)
    return stream, len("\n\n".join(texts).encode("utf-8", "replace"))


def _long_enough(held: Tensor, length: int) -> Tensor:
    if len(held) <= length:
        raise ValueRangeError(
            f"The held-out text is too short: {len(held)} tokens are no more than one window of {length}; give more "
            "of it, or a smaller `length`"
        )
    return held


def _device(model: nn.Module) -> torch.device:
    found: torch.device = next(model.parameters()).device
    return found


def _windows(tokens: Tensor, length: int) -> Tensor:
    """(n, length) consecutive windows, a fixed selection where there are many."""
    n = len(tokens) // length
    windows = tokens[: n * length].view(n, length)
    if n > _MOST_WINDOWS:
        windows = windows[torch.linspace(0, n - 1, _MOST_WINDOWS).long()]
    return windows


def _mean(parts: Iterator[tuple[Tensor, int]]) -> float:
    total, count = 0.0, 0
    for loss, n in parts:
        total += float(loss) * n
        count += n
    return total / count
