"""A loaded base model, with what has to be known to train it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

__all__ = ["Base"]


@dataclass(frozen=True)
class Base:
    """A model in float32 and in evaluation mode, its tokens and its task.

    Attributes
    ----------
    model : all of whose parameters are float32
    task : "lm" (next token), "seq2seq" or "classify"
    encode : text to ids. For "lm" and "seq2seq" without special tokens and whole, for "classify" with them and cut to
        the length that was asked for
    name : as given: "embedded", a directory, or a name on the hub
    model_type : of ``config.json``, such as "llama"
    limit : most tokens of a sequence that the model takes, None where there is no such number
    pad : id of padding
    heads : modules (or parameters) that started at random, to be kept trainable
    notes : what a user should be told, one sentence each
    """

    model: nn.Module
    task: str
    encode: Callable[[str], list[int]]
    name: str
    model_type: str
    limit: int | None
    pad: int
    heads: tuple[str, ...]
    notes: tuple[str, ...]
