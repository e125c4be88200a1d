"""Sequences of token ids as one batch, and what a model gives for it."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["accepts", "logits_of", "padded", "place_of"]


def place_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter."""
    found: torch.device = next(model.parameters()).device
    return found


def padded(rows: Sequence[Sequence[int]], pad: int, place: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows of ids, filled up on the right to the longest, and a mask with 1 where they are not filled.

    Examples
    --------
    >>> [each.tolist() for each in padded([[5, 6], [7]], 0, torch.device("cpu"))]
    [[[5, 6], [7, 0]], [[1, 1], [1, 0]]]
    """
    ids = torch.full((len(rows), max(map(len, rows))), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.as_tensor(row)
        mask[n, : len(row)] = 1
    return ids.to(place), mask.to(place)


def logits_of(output: Any) -> Tensor:
    """Return the logits of a model's output, which may be a tensor or a transformers output, in float32."""
    found: Tensor = output if isinstance(output, Tensor) else output.logits
    return found.float()


def accepts(model: nn.Module, name: str) -> bool:
    """Return whether the forward pass of a model has a parameter of this name."""
    return name in signature(model.forward).parameters
