"""Adapters that rescale or rotate a weight: their ``delta_W = changed(W) - W`` is defined by the base.

With the base an update is a dense one, computed when asked for. Without it, the update says what the file holds: the
change of the scaling or rotation alone, under the flag "needs_base"; a side that only the base knows has the size 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.format import Source
from subspace.adapters.update import DenseUpdate, Factor, Scale
from subspace.errors import InconclusiveError, ShapeError, located
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.base.weights import BaseWeight

__all__ = ["bound", "site", "unbound"]

_SCALE = Scale(1.0, "1: of the base")


def site(
    module: str,
    source: Source,
    *,
    size: int | None,
    side: str,
    kind: str = "linear",
    fan_in_fan_out: bool | None = None,
) -> BaseWeight | None:
    """The base weight of a module of which one side is known; None without a base, or where the base lacks it.

    Parameters
    ----------
    size, side : of W's "out" or "in" side, the in side of a convolution counting its kernel; None if not known

    Raises
    ------
    ShapeError : the weight has no such side
    """
    base = source.base
    key = None if base is None else base.find(module)
    if base is None or key is None:
        return None
    n, *rest = base.tensors.layout[key].shape
    m = int(np.prod(rest))
    if size is None:
        size = n if base.stored_transposed(module) else m
    if size not in {n, m}:
        raise ShapeError(
            f"a base weight must have the {side} side of its update: got {[n, m]} for {shown(key)} and {size} for "
            f"module {shown(module)}, in {shown(base.path, longest=1000)}; is it the adapter's base model?"
        )
    # a weight (out, in) as nn.Linear has it, unless the side that is known stands at the other end
    plain = size == (n if side == "out" else m)
    d_out, d_in = (n, m) if plain else (m, n)
    asked = Factor((d_out, d_in), "float32", lambda: np.zeros((d_out, d_in), np.float32))
    return base.weight(DenseUpdate(module, asked, kind=kind, fan_in_fan_out=fan_in_fan_out))


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
    """``delta_W = change(W)``, with W (d_out, d_in) in float64.

    Parameters
    ----------
    rounded : whether numbers near 1 were rounded to `dtype`, so that delta_W carries the rounding of W's size
    """

    def original() -> NDArray[Any]:
        return weight.factor().load().astype(np.float64)

    def load() -> NDArray[Any]:
        with located(f"module {shown(module)} of {source.path}"):
            return change(original())

    matrix = Factor(weight.shape, dtype, load, stored=original if rounded else None)
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
    """What is known without the base: `change` is that of the scaling (l - 1) or of the rotation (R - I).

    Reading its matrix raises `InconclusiveError`; its `stored` is the change as a matrix, for who looks at that.
    """

    def stored() -> NDArray[Any]:
        numbers = change()
        return numbers.reshape(len(numbers), -1)

    given = source.base is not None
    why = (
        "the base lacks it; give the adapter's own"
        if given
        else "give the base weights with --base (in Python: load_adapter(..., base=...))"
    )

    def load() -> NDArray[Any]:
        raise InconclusiveError(
            f"delta_W of {flag.upper()} is defined by the base weight: got none for module {shown(module)} "
            f"of {source.path}; {why}"
        )

    matrix = Factor(shape, dtype, load, part=lambda start, stop: load(), stored=stored)
    return DenseUpdate(
        module, matrix, Scale(None, "needs the base"), kind=kind, flags=(Flag.DENSE, flag, Flag.NEEDS_BASE)
    )
