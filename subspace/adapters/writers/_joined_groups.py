"""The updates of an adapter as layers to be written: groups of a fused layer joined again, parametrizations added up.

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
from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.errors import FormatError
from subspace.flags import Flag
from subspace.text import listed

__all__ = ["layers_of", "require_writable"]

_QKV = ("q", "k", "v")


def require_writable(adapter: Adapter) -> None:
    """Check that every update is a pair of factors of a whole layer, or of a group of one.

    Raises
    ------
    FormatError : a module that no file of pairs can hold
    """
    for update in adapter.values():
        where = place(adapter.path, update.module)
        if Flag.EXPERT in update.flags:
            raise FormatError(f"Cannot write {where}: it is one of several experts that share a pair")
        if Flag.NEEDS_BASE in update.flags:
            raise FormatError(
                f"Cannot write {where}, whose delta_W needs the base weight; cut it to factors of a rank first, by "
                "subspace truncate with `base`"
            )
        if isinstance(update, DenseUpdate):
            raise FormatError(
                f"Cannot write a dense delta_W, in {where}; cut it to factors of a rank first, by subspace truncate"
            )
        if _is_group(update) and update.kind != "linear":
            raise FormatError(f"Cannot write {where}: it is a group of a convolution")


def layers_of(adapter: Adapter, *, stacked: bool) -> list[Layer]:
    """Every module of an adapter as it is to be written, in order.

    Parameters
    ----------
    adapter : one that `require_writable` lets through
    stacked : whether groups are stacked as loralib has them, else one pair with zeros

    Raises
    ------
    FormatError : groups whose rows are not known, or that lie between one another
    """
    together: dict[str, list[LowRankUpdate]] = defaultdict(list)
    for update in adapter.values():
        assert isinstance(update, LowRankUpdate)
        if Flag.INTERLEAVED in update.flags:
            raise FormatError(
                f"Cannot write {place(adapter.path, update.module)}: it is a group whose rows lie between the rows of "
                "others"
            )
        together[_layer_name(update)].append(update)
    return [_layer(name, parts, adapter, stacked) for name, parts in together.items()]


def _is_group(update: Update) -> bool:
    """Whether an update is of some rows of its layer."""
    return Flag.FUSED in update.flags or (update.rows is not None and update.module.endswith("]"))


def _layer_name(update: LowRankUpdate) -> str:
    shared = _is_group(update) or Flag.STACKED in update.flags
    return update.module.rpartition("[")[0] if shared else update.module


def _layer(name: str, parts: Sequence[LowRankUpdate], adapter: Adapter, stacked: bool) -> Layer:
    if Flag.STACKED in parts[0].flags:
        return _sum(name, parts)
    if not _is_group(parts[0]):
        return layer_of(parts[0])
    places = [_place(part, name) for part in parts]
    ordered = [part for _, part in sorted(zip(places, parts, strict=True), key=lambda item: item[0])]
    where = place(adapter.path, name)
    if len({part.scale.value for part in parts}) > 1:
        raise FormatError(f"Cannot join the groups of a fused layer that have different scales, in {where}")
    if stacked and adapter.format != "xlabs":
        return _stack(name, ordered, where)
    return _blocks(name, ordered, _rows(ordered, adapter, where))


def _sum(name: str, parts: Sequence[LowRankUpdate]) -> Layer:
    """Parametrizations of one weight, which add up, as one pair: A under one another, B side by side."""
    layers = [layer_of(part) for part in parts]
    if len({layer.scale for layer in layers}) > 1:
        layers = [layer.folded() for layer in layers]
    A, B = np.vstack([layer.A for layer in layers]), np.hstack([layer.B for layer in layers])
    return replace(layers[0], module=name, A=A, B=B, of=tuple(part.module for part in parts))


def _place(part: LowRankUpdate, name: str) -> int:
    """What the groups of a layer are sorted by."""
    if part.rows is not None:
        return part.rows[0]
    label = part.module[len(name) + 1 : -1]
    return _QKV.index(label) if label in _QKV else int(label) if label.isdecimal() else 0


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
    stops: Mapping[str, int] = {_label(part): part.rows[1] for part in parts if part.rows is not None}
    if len(stops) == len(parts) and "v" in stops:
        return stops["v"]
    if len(stops) == len(parts) and set(stops) <= set(_QKV) and "litgpt" not in adapter.formats:
        return len(_QKV) * parts[0].d_out
    if adapter.format == "xlabs" and parts[0].d_out == len(_QKV) * parts[0].d_in:
        # black-forest-labs/flux, src/flux/modules/layers.py, SingleStreamBlock: q, k, v and an MLP of 4 times the size
        return parts[0].d_out + 4 * parts[0].d_in
    raise FormatError(
        f"Cannot tell which rows of the fused layer these groups cover: {listed(part.module for part in parts)}, in "
        f"{where}; say which of q, k and v are adapted with `enable_lora`, or choose the format loralib"
    )


def _label(part: LowRankUpdate) -> str:
    """What stands in the brackets of a group: q, k or v, or its number."""
    return part.module.rpartition("[")[2].removesuffix("]")


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
