"""What is learned: the next token, the second half of a text from its first, a completion, or the class of a text.

A task gives the loss of any micro-batch of any step as a pure function of its numbers and the data seed, so that a run
that resumes needs no state of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.errors import ValueRangeError
from subspace.training.batches import logits_of, place_of
from subspace.training.classes import Classes, classes_of
from subspace.training.completions import Completions, Row
from subspace.training.data import split_stream, window_starts
from subspace.training.models.scrambled_tokens import with_scrambled_tokens
from subspace.training.rows import rows_of_conversations, rows_of_prompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.training.data import Examples
    from subspace.training.models import Base
    from subspace.training.recipe import Recipe

__all__ = ["Classes", "Completions", "Halves", "NextToken", "Objective", "Task", "logits_of", "task_of"]

_MOST_WINDOWS = 256


class Objective(Protocol):
    """What the training loop needs of a task."""

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the mean loss of micro-batch `step`, counted from 0."""

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Return measures on held-out data by name, {} where nothing was held out."""


class Task(Objective, Protocol):
    """What a run needs of a task.

    Attributes
    ----------
    notes : notes for the user, one sentence each
    facts : entries of the run's record
    """

    notes: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def epoch(self) -> int:
        """Examples, or windows of text, that one epoch goes through."""


@dataclass
class NextToken:
    """Predict each token from those before it.

    Attributes
    ----------
    train, held : tokens to train on and held-out ones, one-dimensional, of the smallest type that torch indexes by;
        `held` may be empty
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
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tokens: Sequence[int] | NDArray[np.integer],
        n_bytes: int,
        *,
        batch: int,
        length: int,
        seed: int,
        held: float | NDArray[np.integer],
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
        stream = torch.as_tensor(np.asarray(tokens))
        if isinstance(held, np.ndarray):
            own = torch.as_tensor(held)
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

    @property
    def epoch(self) -> int:
        """Windows that the text to train on has side by side; they are drawn at random places."""
        return len(self.train) // self.length

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the mean cross-entropy in nats per token of micro-batch `step`."""
        starts = window_starts(len(self.train), self.length + 1, self.batch, step, seed=self.seed)
        windows = self.train[torch.from_numpy(starts)[:, None] + torch.arange(self.length + 1)]
        return self._loss(model, windows.long().to(place_of(model)))

    def _loss(self, model: nn.Module, windows: Tensor) -> Tensor:
        logits = logits_of(model(windows[:, :-1]))
        return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Return the ``loss`` in nats per token and ``bits_per_byte``, over windows that begin without context."""
        windows = _windows(self.held, self.length + 1)
        if not len(windows):
            return {}
        loss = _mean(
            (self._loss(model, part.long().to(place_of(model))), len(part))
            for part in windows.split(self.batch)
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


def task_of(base: Base, examples: Examples, recipe: Recipe, *, train_on: str = "completion") -> Task:
    """Return what a base learns from examples: their classes, completions, turns of conversations, or the next token.

    Parameters
    ----------
    base : the model with its tokenizer
    examples : texts, with or without labels
    recipe : for batch, length, seed and the fraction that is held out
    train_on : of prompts and conversations "completion", what answers, or "all"

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
        return classes_of(base, examples, recipe, **common)
    everything, paired = train_on == "all", base.task == "seq2seq"
    # an encoder and a decoder cannot write what the encoder reads
    if (examples.prompts or examples.messages) and not (everything and paired):
        rows, notes = _rows(base, examples, paired=paired, everything=everything)
        common |= {"pad": base.pad, "length": recipe.length, "limit": base.limit}
        completions = Completions.of(rows, paired=paired, **common)
        return replace(completions, notes=(*notes, *completions.notes))
    stream, n_bytes = _stream(base, trained.texts)
    if trained.held_out is not None:
        common["held"], n_bytes = _stream(base, trained.held_out.texts)
    kind = Halves if paired else NextToken
    task: Task = kind.of(stream, n_bytes, length=recipe.length, **common)
    return task


def _stream(base: Base, texts: Sequence[str]) -> tuple[NDArray[np.integer], int]:
    """Texts as one stream of tokens, with a blank line between two, and the number of bytes that it stands for."""
    between = base.encode.array("\n\n")
    parts = [part for text in texts for part in (between, base.encode.array(text))][1:]
    n_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts) + 2 * (len(texts) - 1)
    return np.concatenate(parts), n_bytes


def _rows(base: Base, examples: Examples, **how: bool) -> tuple[list[Row], list[str]]:
    if examples.messages:
        return rows_of_conversations(base.encode, examples.messages, **how)
    rows = rows_of_prompts(base.encode, examples.texts, examples.prompts or (), **how)
    if base.encode.stop is not None:
        return rows, []
    return rows, ["the tokenizer has no end of text, so none is learned after a completion"]


def _long_enough(held: Tensor, length: int) -> Tensor:
    if len(held) <= length:
        raise ValueRangeError(
            f"The held-out text is too short: {len(held)} tokens are no more than one window of {length}; give more "
            "of it, or a smaller `length`"
        )
    return held


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
