"""The updates of an adapter as layers to be written, with the groups of a fused layer joined again.

A group covers some rows of its layer. loralib stores the groups stacked; any other format holds the layer as one pair
of rank r * groups whose B is zero outside the rows of each group: the same delta_W, with the zeros stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer, layer_of
from subspace.adapters.place import place
from subspace.adapters.update import LowRankUpdate, Update
from subspace.errors import FormatError
from subspace.flags import Flag
from subspace.text import listed

__all__ = ["layers_of"]

_QKV = ("q", "k", "v")
_UNWRITTEN = {
    Flag.EXPERT: "one of several experts that share a pair",
    Flag.INTERLEAVED: "a group whose rows lie between the rows of others",
}


def layers_of(adapter: Adapter, *, stacked: bool) -> list[Layer]:
    """Every module of an adapter as it is to be written, in order.

    Parameters
    ----------
    stacked : whether groups are stacked as loralib has them, else one pair with zeros

    Raises
    ------
    FormatError : a module that no file of pairs can hold, or groups whose rows are not known
    """
    together: dict[str, list[LowRankUpdate]] = defaultdict(list)
    for update in adapter.values():
        together[_layer_name(update)].append(_written(update, adapter))
    return [_layer(name, parts, adapter, stacked) for name, parts in together.items()]


def _layer_name(update: Update) -> str:
    return update.module.rpartition("[")[0] if Flag.FUSED in update.flags else update.module


def _written(update: Update, adapter: Adapter) -> LowRankUpdate:
    where = place(adapter.path, update.module)
    for flag, what in _UNWRITTEN.items():
        if flag in update.flags:
            raise FormatError(f"Cannot write {where}: it is {what}")
    if Flag.NEEDS_BASE in update.flags:
        raise FormatError(
            f"Cannot write {where}, whose delta_W needs the base weight; cut it to factors of a rank first, by "
            "subspace truncate with `base`"
        )
    if not isinstance(update, LowRankUpdate):
        raise FormatError(
            f"Cannot write a dense delta_W, in {where}; cut it to factors of a rank first, by subspace truncate"
        )
    if Flag.FUSED in update.flags and update.kind != "linear":
        raise FormatError(f"Cannot write {where}: it is a group of a convolution")
    return update


def _layer(name: str, parts: Sequence[LowRankUpdate], adapter: Adapter, stacked: bool) -> Layer:
    if Flag.FUSED not in parts[0].flags:
        return layer_of(parts[0])
    places = [_place(part, name) for part in parts]
    ordered = [part for _, part in sorted(zip(places, parts, strict=True), key=lambda item: item[0])]
    where = place(adapter.path, name)
    if len({part.scale.value for part in parts}) > 1:
        raise FormatError(f"Cannot join the groups of a fused layer that have different scales, in {where}")
    if stacked:
        return _stack(name, ordered, where)
    return _blocks(name, ordered, _rows(ordered, adapter, where))


def _place(part: LowRankUpdate, name: str) -> int:
    """What the groups of a layer are sorted by."""
    if part.rows is not None:
        return part.rows[0]
    label = part.module[len(name) + 1 : -1]
    return _QKV.index(label) if label in _QKV else int(label)


def _stack(name: str, parts: Sequence[LowRankUpdate], where: str) -> Layer:
    """Groups under one another, of one rank: A (r * groups, d_in), B (size * groups, r), as loralib has them."""
    if len({part.d_out for part in parts}) > 1:
        raise FormatError(
            f"loralib cannot hold groups of different sizes: they have {[part.d_out for part in parts]} rows, in "
            f"{where}; choose another format"
        )
    r = max(part.r for part in parts)
    A = np.vstack([np.pad(part.A, ((0, r - part.r), (0, 0))) for part in parts])
    B = np.vstack([np.pad(part.B, ((0, 0), (0, r - part.r))) for part in parts])
    return _joined(name, parts, A, B, groups=len(parts))


def _rows(parts: Sequence[LowRankUpdate], adapter: Adapter, where: str) -> int:
    """Rows of the whole layer, including groups that are not adapted."""
    stops: Mapping[str, int] = {part.module[-2]: part.rows[1] for part in parts if part.rows is not None}
    if len(stops) == len(parts) and "v" in stops:
        return stops["v"]
    if len(stops) == len(parts) and set(stops) <= set(_QKV) and "litgpt" not in adapter.formats:
        return len(_QKV) * parts[0].d_out
    raise FormatError(
        f"Cannot tell which rows of the fused layer these groups cover: {listed(part.module for part in parts)}, in "
        f"{where}; say which of q, k and v are adapted with `enable_lora`, or choose the format loralib"
    )


def _blocks(name: str, parts: Sequence[LowRankUpdate], rows: int) -> Layer:
    """One pair for all groups: their A under one another, each B in its own rows and columns and zero elsewhere."""
    A = np.vstack([part.A for part in parts])
    B = np.zeros((rows, len(A)), np.result_type(*(part.B for part in parts)))
    column = 0
    for part in parts:
        assert part.rows is not None
        B[slice(*part.rows), column : column + part.r] = part.B
        column += part.r
    return _joined(name, parts, A, B, groups=1)


def _joined(name: str, parts: Sequence[LowRankUpdate], A: np.ndarray, B: np.ndarray, *, groups: int) -> Layer:
    first = layer_of(parts[0])
    return replace(first, module=name, A=A, B=B, of=tuple(part.module for part in parts), groups=groups)
