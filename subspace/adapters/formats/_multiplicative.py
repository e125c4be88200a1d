"""Adapters that rescale or rotate a weight, whose ``delta_W = changed(W) - W`` needs the base weight.

With the base, the update is dense and computed on access. Without it, the update has the flag "needs_base" and holds
what the file holds, the scaling or rotation; a side whose size only the base knows has the size 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.format import Source
from subspace.adapters.place import place
from subspace.adapters.update import NEEDS_BASE, DenseUpdate, Factor, Scale
from subspace.errors import InconclusiveError, ShapeError, located
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.base.weights import BaseWeight, BaseWeights

__all__ = ["bound", "found", "site", "unbound"]

_SCALE = Scale(1.0, "1, relative to the base")
_WHAT = {Flag.GLORA: "GLoRA", Flag.FINE_TUNE: "a whole weight"}


def site(
    module: str,
    source: Source,
    *,
    size: int | None,
    side: str,
    kind: str = "linear",
    fan_in_fan_out: bool | None = None,
) -> BaseWeight | None:
    """The base weight of a module, one side of which is known; None without a base, or without the module in it.

    Parameters
    ----------
    size, side : size of the "out" or "in" side of W, where the in side of a convolution includes its kernel; None if
        not known

    Raises
    ------
    ShapeError : no side of the weight has that size
    """
    base = source.base
    key = None if base is None else found(base, module)
    if base is None or key is None:
        return None
    n, *rest = base.tensors.layout[key].shape
    m = int(np.prod(rest))
    if size is None:
        size = n if base.stored_transposed(module) else m
    if size not in {n, m}:
        raise ShapeError(
            f"The base weight {shown(key)} does not have the {side} side of its update: it is {[n, m]} and module "
            f"{shown(module)} has {size}, in {place(base.path)}; give the base model that the adapter was trained on"
        )
    # (out, in) as in nn.Linear, unless the known size is that of the other side
    plain = size == (n if side == "out" else m)
    d_out, d_in = (n, m) if plain else (m, n)
    asked = Factor((d_out, d_in), "float32", lambda: np.zeros((d_out, d_in), np.float32))
    return base.weight(DenseUpdate(module, asked, kind=kind, fan_in_fan_out=fan_in_fan_out))


def found(base: BaseWeights, module: str) -> str | None:
    """Key of the weight, also under the name that another library gives the module."""
    key = base.find(module)
    there = base.translated(module) if key is None else None
    return base.modules[there[0]] if there is not None and not there[1].reordered else key


def bound(
    module: str,
    weight: BaseWeight,
    change: Callable[[NDArray[Any]], NDArray[Any]],
    source: Source,
    *,
    dtype: str,
    flag: Flag,
    kind: str = "linear",
    rounded: bool = False,
    fan_in_fan_out: bool | None = None,
) -> DenseUpdate:
    """``delta_W = change(W)`` of a module whose base weight is known.

    Parameters
    ----------
    change : W (d_out, d_in) in float64 -> delta_W
    rounded : whether numbers near 1 were rounded to `dtype`, so that the rounding of delta_W is relative to W
    """

    def original() -> NDArray[Any]:
        return weight.factor().load().astype(np.float64)

    def load() -> NDArray[Any]:
        with located(f"{source.place(module)}"):
            return change(original())

    matrix = Factor(
        weight.shape,
        dtype,
        load,
        stored=original if rounded else None,
        numbers=None if rounded else weight.shape[0] * weight.shape[1],
    )
    return DenseUpdate(
        module, matrix, _SCALE, kind=kind, fan_in_fan_out=fan_in_fan_out, flags=(Flag.DENSE, flag)
    )


def unbound(
    module: str,
    change: Callable[[], NDArray[Any]],
    source: Source,
    *,
    shape: tuple[int, int],
    dtype: str,
    flag: Flag,
    kind: str = "linear",
) -> DenseUpdate:
    """The update of a module without its base weight, whose matrix cannot be read.

    Parameters
    ----------
    change : -> l - 1 of the scaling, or R - I of the rotation, which is `stored` of the matrix
    """

    def stored() -> NDArray[Any]:
        numbers = change()
        return numbers.reshape(len(numbers), -1)

    what = f"delta_W of {_WHAT.get(flag, flag.upper())} needs the base weight of {source.place(module)}"
    if source.base is None:
        message = f"No base weights: {what}; give the weights of the base model as `base`"
    else:
        message = (
            f"The base has no such module: {what}, which {place(source.base.path)} lacks; give the base model that the "
            "adapter was trained on"
        )

    def load() -> NDArray[Any]:
        raise InconclusiveError(message)

    matrix = Factor(shape, dtype, load, part=lambda start, stop: load(), stored=stored)
    return DenseUpdate(
        module, matrix, Scale(None, NEEDS_BASE), kind=kind, flags=(Flag.DENSE, flag, Flag.NEEDS_BASE)
    )
