"""What an IA3 rescales, of PEFT or LyCORIS: its base weight, and the numbers that this is multiplied by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.format import Source
from subspace.adapters.formats import _multiplicative as multiplicative
from subspace.adapters.place import place
from subspace.errors import ShapeError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.base.weight import BaseWeight

__all__ = ["channel_site", "scaling"]


def channel_site(
    module: str, size: int, side: str, kind: str, source: Source
) -> tuple[BaseWeight | None, int | None]:
    """The base weight, and the input channels of a convolution whose columns are rescaled."""
    key = None
    if kind == "conv" and side == "in":
        base = source.base
        key = None if base is None else multiplicative.found(base, module)
    if key is None or base is None:
        weight = multiplicative.site(
            module, source, size=size, side=side, kind=kind, fan_in_fan_out=source.fan_in_fan_out
        )
        return weight, None
    shape = base.tensors.layout[key].shape
    if len(shape) < 3 or size % shape[1] or shape[0] % (size // shape[1]):
        raise ShapeError(
            f"The base weight {shown(key)} does not have the input channels of its update: it is {list(shape)} and "
            f"module {shown(module)} has {size}, in {place(base.path)}; give the base model of the adapter"
        )
    return multiplicative.site(module, source, size=shape[0], side="out", kind=kind), shape[1]


def scaling(by: NDArray[Any], side: str, shape: tuple[int, ...], channels: int | None) -> NDArray[Any]:
    """What W is multiplied by: its rows, its columns, or the columns of each group of a convolution.

    References
    ----------
    huggingface/peft 0.21.2, tuners/ia3/layer.py: ``Linear.merge``, ``_ConvNd._get_ia3_scaling_for_weight``.
    """
    if side == "out":
        return by[:, None]
    if channels is None:
        return by[None, :]
    groups = len(by) // channels
    columns = np.repeat(by.reshape(groups, channels), shape[1] // channels, axis=1)
    return np.repeat(columns, shape[0] // groups, axis=0)
