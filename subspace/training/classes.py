"""Learning the class of a text, or of a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.text import listed
from subspace.training.batches import logits_of, padded, place_of
from subspace.training.data import epoch_batch, split
from subspace.training.measures import class_measures, cut_note, cut_of

if TYPE_CHECKING:
    from subspace.training.data import Examples
    from subspace.training.models import Base
    from subspace.training.recipe import Recipe

__all__ = ["Classes", "classes_of"]

_SPLIT_SEED = 0  # the same examples are held out in every run, or runs could not be compared


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
    types : for each token which of two texts it is of; None where the model makes no difference
    notes : notes for the user, one sentence each
    facts : entries of the run's record
    """

    tokens: Sequence[Sequence[int]]
    labels: Sequence[int]
    batch: int
    seed: int
    pad: int
    kept: Any
    apart: Any
    types: Sequence[Sequence[int]] | None = None
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

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
        types: Sequence[Sequence[int]] | None = None,
    ) -> Classes:
        """Return the task of labelled texts, a fraction `held` of each class held out."""
        kept, apart = split(len(tokens), held, seed=_SPLIT_SEED, labels=labels)
        return cls(tokens, labels, batch, seed, pad, kept, apart, types)

    @property
    def epoch(self) -> int:
        """Examples that one epoch goes through."""
        return len(self.kept)

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the mean cross-entropy in nats per text of micro-batch `step`."""
        chosen = self.kept[epoch_batch(len(self.kept), self.batch, step, seed=self.seed)]
        logits, labels = self._logits(model, chosen)
        return functional.cross_entropy(logits, labels)

    def _logits(self, model: nn.Module, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        place = place_of(model)
        ids, mask = padded([self.tokens[i] for i in chosen], self.pad, place)
        given = {"input_ids": ids, "attention_mask": mask}
        if self.types is not None:
            given["token_type_ids"] = padded([self.types[i] for i in chosen], 0, place)[0]
        return logits_of(model(**given)), torch.as_tensor([self.labels[i] for i in chosen], device=place)

    def held_out(self, model: nn.Module) -> dict[str, float]:
        """Return ``loss`` in nats per text, and what `class_measures` returns."""
        if not len(self.apart):
            return {}
        # texts of similar length together, so that there is little padding
        order = sorted(self.apart, key=lambda i: len(self.tokens[i]))
        loss, predicted = 0.0, []
        for begin in range(0, len(order), 4 * self.batch):
            logits, labels = self._logits(model, order[begin : begin + 4 * self.batch])
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            predicted += logits.argmax(-1).tolist()
        return {"loss": loss / len(order), **class_measures([self.labels[i] for i in order], predicted)}


def classes_of(base: Base, examples: Examples, recipe: Recipe, **common: Any) -> Classes:
    """Return the task of labelled texts or pairs of texts; classes have the numbers of the base's outputs.

    Parameters
    ----------
    base : a classifier with its tokenizer
    examples : texts with labels
    recipe : for the length
    common : batch, seed, and the fraction that is held out, as `Classes.of` has them
    """
    names = base.labels or examples.label_names
    number = {name: n for n, name in enumerate(names)}
    labels = [number[examples.label_names[label]] for label in examples.labels or ()]
    seconds = examples.seconds or [None] * len(labels)
    encoded = [base.encode.encoded(*pair) for pair in zip(examples.texts, seconds, strict=True)]
    types = [each.types for each in encoded if each.types is not None]
    tokens = [each.ids for each in encoded]
    task = Classes.of(tokens, labels, pad=base.pad, types=types or None, **common)
    cut = cut_of([(each.length, len(each.ids)) for each in encoded], recipe.length)
    trained, held = ([labels[i] for i in part] for part in (task.kept, task.apart))
    counts = {name: {"trained": trained.count(n), "held_out": held.count(n)} for name, n in number.items()}
    absent = [name for name, count in counts.items() if not count["held_out"]] if held else []
    notes = (
        [f"no example of these classes is held out, so they are not measured: {listed(absent)}"]
        if absent
        else []
    )
    facts = {"label_names": list(names), "classes": counts, "cut": cut}
    return replace(task, notes=(*notes, *cut_note(cut, most=base.limit)), facts=facts)
