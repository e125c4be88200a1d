"""Learning to write one text after another: the completion of a prompt, or the assistant's turns of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.errors import ValueRangeError
from subspace.text import counted
from subspace.training.batches import accepts, padded, place_of
from subspace.training.data import epoch_batch, split
from subspace.training.measures import cut_note, cut_of

__all__ = ["Completions", "Row"]

_SPLIT_SEED = 0  # the same examples are held out in every run, or runs could not be compared
_NOT_LEARNED = -100


class Row(NamedTuple):
    """One sequence to learn from.

    Attributes
    ----------
    example : number of the example that it is of
    ids : the whole sequence; for an encoder and a decoder what the decoder writes
    learned : for each of `ids` whether it is learned
    source : ids that an encoder reads; () for a model that has none
    """

    example: int
    ids: Sequence[int]
    learned: Sequence[bool]
    source: Sequence[int] = ()

    def cut(self, most: int) -> Row:
        """Return the row with no more than `most` ids on either side."""
        return Row(self.example, self.ids[:most], self.learned[:most], self.source[:most])

    @property
    def size(self) -> int:
        """How many ids there are."""
        return len(self.ids) + len(self.source)

    @property
    def teaches(self) -> bool:
        """Whether anything is learned; the first of a sequence is predicted from nothing, and only by a decoder."""
        return any(self.learned[0 if self.source else 1 :])


@dataclass
class Completions:
    """Predict the completion of a prompt, or the assistant's turns of a conversation, each example in a row of its own.

    Attributes
    ----------
    rows : what is learned from, all of which teach something
    paired : whether the model has an encoder and a decoder
    batch : rows per micro-batch
    seed : of the order of the rows
    pad : id of padding
    kept, apart : indices of the rows that are trained on, and of those held out
    notes : notes for the user, one sentence each
    facts : entries of the run's record
    """

    rows: Sequence[Row]
    paired: bool
    batch: int
    seed: int
    pad: int
    kept: Any
    apart: Any
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        *,
        paired: bool,
        batch: int,
        seed: int,
        pad: int,
        held: float | Sequence[int],
        length: int,
        limit: int | None = None,
    ) -> Completions:
        """Return the task of rows that may be too long; those that teach nothing after the cut are left out.

        Parameters
        ----------
        rows : of all examples, numbered from 0 without a gap
        paired, batch, seed, pad : see the attributes
        held : fraction of the examples that is held out, in [0, 0.5), or their numbers
        length : most tokens of a row, on either side
        limit : most tokens that the model takes

        Raises
        ------
        ValueRangeError : nothing is left
        """
        short = [row.cut(length) for row in rows]
        cut = cut_of([(row.size, each.size) for row, each in zip(rows, short, strict=True)], length)
        useful = [row for row in short if row.teaches]
        if not useful:
            raise ValueRangeError(
                f"No example has a completion within its first {length} tokens, so there is nothing to learn; give a "
                "larger `length`, or other `data`"
            )
        numbers = sorted({row.example for row in useful})
        own = _trained(numbers, held)
        parts = [
            [n for n, row in enumerate(useful) if (row.example in own) is mine] for mine in (True, False)
        ]
        examples = 1 + max(row.example for row in rows)
        facts = {
            "cut": cut,
            "examples": {
                "trained": len(own),
                "held_out": len(numbers) - len(own),
                "left_out": examples - len(numbers),
            },
        }
        notes = (*_left_out(examples - len(numbers), examples, length), *cut_note(cut, most=limit))
        kept, apart = (torch.as_tensor(part, dtype=torch.int64).numpy() for part in parts)
        return cls(useful, paired, batch, seed, pad, kept, apart, notes, facts)

    @property
    def epoch(self) -> int:
        """Rows that one epoch goes through."""
        return len(self.kept)

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the mean cross-entropy in nats per learned token of micro-batch `step`."""
        chosen = self.kept[epoch_batch(len(self.kept), self.batch, step, seed=self.seed)]
        logits, ids = self._learned(model, [self.rows[i] for i in chosen])
        return functional.cross_entropy(logits, ids)

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Return ``loss`` in nats per learned token, and ``token_accuracy``, the share that is the likeliest token."""
        # rows of similar length together, so that there is little padding
        order = sorted((self.rows[i] for i in self.apart), key=lambda row: (row.size, row.example))
        loss, right, count = 0.0, 0, 0
        for begin in range(0, len(order), self.batch):
            logits, ids = self._learned(model, order[begin : begin + self.batch])
            loss += float(functional.cross_entropy(logits, ids, reduction="sum"))
            right += int((logits.argmax(-1) == ids).sum())
            count += len(ids)
        return {"loss": loss / count, "token_accuracy": right / count} if count else {}

    def _learned(self, model: nn.Module, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Logits, in float32, and ids of what is learned of rows: (n, vocabulary) and (n,)."""
        place = place_of(model)
        ids, mask = padded([row.ids for row in rows], self.pad, place)
        learned = padded([list(map(int, row.learned)) for row in rows], 0, place)[0].bool()
        if self.paired:
            source, seen = padded([row.source for row in rows], self.pad, place)
            labels = ids.masked_fill(mask == 0, _NOT_LEARNED)
            logits: Any = model(input_ids=source, attention_mask=seen, labels=labels).logits
        else:
            output: Any = model(ids, attention_mask=mask) if accepts(model, "attention_mask") else model(ids)
            logits = (output if isinstance(output, Tensor) else output.logits)[:, :-1]
            ids, learned = ids[:, 1:], learned[:, 1:]
        return logits[learned].float(), ids[learned]


def _trained(numbers: Sequence[int], held: float | Sequence[int]) -> set[int]:
    """The numbers of the examples that are trained on."""
    if isinstance(held, Sequence):
        return set(numbers) - set(held)
    kept, _ = split(len(numbers), held, seed=_SPLIT_SEED)
    return {numbers[n] for n in kept}


def _left_out(count: int, total: int, length: int) -> list[str]:
    if not count:
        return []
    return [
        f"{count:,} of {counted(total, 'example')} left out: no token to learn is among the first {length:,}"
    ]
