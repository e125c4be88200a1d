"""Which rows of a fused layer each group has, and B with the groups in their rows."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.training.layer_shapes import sizes

if TYPE_CHECKING:
    from subspace.checkpoints.fused_layouts import Ranges
    from subspace.training.adapted_layer import AdaptedLayer
    from subspace.training.lowrank import Rows
    from subspace.training.methods._low_rank import LowRank

__all__ = ["count", "group_rows", "in_blocks", "index", "joined", "parted"]


def group_rows(layer: nn.Module, method: LowRank) -> tuple[Ranges, ...]:
    """The ranges of rows of each adapted group; of a layer that is one all of its rows."""
    return method.rows or (((0, sizes(layer)[0]),),)


def count(ranges: Ranges) -> int:
    """How many rows they are."""
    return sum(stop - start for start, stop in ranges)


def index(ranges: Ranges, device: torch.device) -> Any:
    """What selects the rows of a group: a slice, or their numbers where they are several ranges."""
    return slice(*ranges[0]) if len(ranges) == 1 else torch.from_numpy(_numbers(ranges)).to(device)


@lru_cache(maxsize=64)
def _numbers(ranges: Ranges) -> Any:
    return np.concatenate([np.arange(start, stop) for start, stop in ranges])


def in_blocks(layer: AdaptedLayer, method: LowRank, B: Tensor) -> tuple[Tensor, Rows]:
    """B with the range of rows of each group; groups that lie between one another become one, with zeros in B."""
    rows = group_rows(layer, method)
    if all(len(ranges) == 1 for ranges in rows):
        return B, tuple(ranges[0] for ranges in rows)
    return joined(layer, method, B), ((0, sizes(layer)[0]),)


def joined(layer: AdaptedLayer, method: LowRank, B: Tensor) -> Tensor:
    """Return B (d_out, r * groups) of a fused layer: each group's B in its rows and columns, zero elsewhere.

    Parameters
    ----------
    layer : a fused linear one
    method : rank and groups
    B : (rows of the groups, r)
    """
    rows, n = group_rows(layer, method), B.shape[1]
    columns = [
        functional.pad(block, (k * n, (len(rows) - 1 - k) * n))
        for k, block in enumerate(B.split([count(ranges) for ranges in rows]))
    ]
    numbers = torch.from_numpy(np.concatenate([_numbers(ranges) for ranges in rows])).to(B.device)
    whole = B.new_zeros(sizes(layer)[0], n * len(rows))
    return whole.index_copy(0, numbers, torch.cat(columns))


def parted(layer: AdaptedLayer, method: LowRank, whole: Tensor) -> Tensor:
    """Return B (rows of the groups, r) of a fused layer from what `joined` gives."""
    rows = group_rows(layer, method)
    r = whole.shape[1] // len(rows)
    parts = [whole[index(ranges, whole.device)] for ranges in rows]
    return torch.cat([part[:, k * r : (k + 1) * r] for k, part in enumerate(parts)])
