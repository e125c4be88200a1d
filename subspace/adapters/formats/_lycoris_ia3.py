"""IA3 of LyCORIS: ``weight``, one number per output or per input channel, and ``on_input``, which of the two.

``delta_W = W * w``: unlike IA3 of PEFT, w is the change itself, so that 0 changes nothing. It needs the base.

References
----------
KohakuBlueleaf/LyCORIS 4.1, modules/ia3.py: ``_ia3_weight`` with ``diff=True``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.format import Source
from subspace.adapters.formats import _channels as channels
from subspace.adapters.update import DenseUpdate
from subspace.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PARTS", "is_ia3", "update"]

PARTS = {".on_input": "on_input", ".weight": "weight"}


def is_ia3(keys: Mapping[str, str]) -> bool:
    """Whether a module has the numbers and the side that they are of."""
    return "on_input" in keys and "weight" in keys


def update(module: str, keys: Mapping[str, str], source: Source) -> DenseUpdate:
    """The update of one module, with the flag "needs_base" where there is no base.

    Raises
    ------
    ShapeError : the numbers are not one row or column, or do not fit the base weight
    """
    key, shape = keys["weight"], source.shape(keys["weight"])
    size = math.prod(shape)
    if not size or size != max(shape):
        raise ShapeError(
            f"weight of an IA3 is not one row of numbers: its shape is {list(shape)}, in {source.place(module)}"
        )
    dtype = source.tensors.layout[key].dtype
    kind = "conv" if len(shape) > 2 else "linear"
    side = "in" if source.tensors.read_scalar(keys["on_input"]) else "out"

    def change() -> NDArray[Any]:
        return source.tensors.read(key).reshape(-1).astype(np.float64)

    return channels.rescaled(module, change, source, size=size, side=side, kind=kind, dtype=dtype)
