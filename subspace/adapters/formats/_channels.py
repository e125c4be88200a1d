"""A weight whose rows or columns are multiplied by one number each, as IA3 of PEFT and of LyCORIS does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.format import Source
from subspace.adapters.formats import _multiplicative as multiplicative
from subspace.adapters.place import place
from subspace.adapters.update import DenseUpdate
from subspace.errors import ShapeError
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.base.weight import BaseWeight

__all__ = ["rescaled"]


def rescaled(
    module: str,
    change: Callable[[], NDArray[Any]],
    source: Source,
    *,
    size: int,
    side: str,
    kind: str,
    dtype: str,
    rounded: bool = False,
    fan_in_fan_out: bool | None = None,
) -> DenseUpdate:
    """``delta_W = W * change`` of a module.

    Parameters
    ----------
    change : -> the numbers (size,) in float64, 0 where nothing changes
    side : "out" where they are of rows, "in" where they are of columns
    rounded, fan_in_fan_out : as in `_multiplicative.bound`
    """
    weight, inputs = _site(module, size, side, kind, source)
    if weight is None:
        sides = (0, size) if side == "in" else (size, 0)
        return multiplicative.unbound(
            module, change, source, shape=sides, dtype=dtype, flag=Flag.IA3, kind=kind
        )
    return multiplicative.bound(
        module,
        weight,
        lambda W: W * _scaling(change(), side, W.shape, inputs),
        source,
        dtype=dtype,
        flag=Flag.IA3,
        kind=kind,
        rounded=rounded,
        fan_in_fan_out=fan_in_fan_out,
    )


def _site(
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


def _scaling(by: NDArray[Any], side: str, shape: tuple[int, ...], channels: int | None) -> NDArray[Any]:
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
