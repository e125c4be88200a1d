"""A loaded base model, with all that is needed to train it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from subspace.training.models.tokens import Encoder

__all__ = ["Base"]


@dataclass(frozen=True)
class Base:
    """A model in float32 and in evaluation mode, with its tokenizer and its task.

    Attributes
    ----------
    model : all of whose parameters are float32
    task : "lm" (next token), "seq2seq" or "classify"
    encode : text to ids; for "lm" and "seq2seq" whole and without special tokens, for "classify" with them and cut to
        the given length
    name : as given: "embedded", a directory, or a name on the hub
    model_type : of ``config.json``, such as "llama"
    limit : most tokens of a sequence that the model takes, None for no limit
    pad : id of padding
    heads : modules (or parameters) that started at random, to be kept trainable
    notes : notes for the user, one sentence each
    labels : classes in the order of the classifier's outputs, the base's own if it is kept; () without a classifier
    """

    model: nn.Module
    task: str
    encode: Encoder
    name: str
    model_type: str
    limit: int | None
    pad: int
    heads: tuple[str, ...]
    notes: tuple[str, ...]
    labels: tuple[str, ...] = ()
