"""A fused layer of one adapter whose parts are layers of their own in another, split into updates that share A.

``B @ A`` of a layer that computes q, k and v has the rows of q, then those of k, then those of v, so each part is the
pair of A and of its rows of B. The tables of `subspace.adapters.naming.writers` name a part as ``img_attn.qkv[q]``.

References
----------
huggingface/diffusers 0.42.1, loaders/lora_conversion_utils.py: ``_convert_to_ai_toolkit_cat``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from subspace.adapters.adapter import Adapter
from subspace.adapters.format import Note
from subspace.adapters.naming.flattened import Flattened
from subspace.adapters.naming.modules import Modules
from subspace.adapters.naming.translation import names_elsewhere
from subspace.adapters.update import DenseUpdate, Factor, Update
from subspace.flags import Flag
from subspace.text import counted, listed

__all__ = ["separated", "split_like"]

_PART = re.compile(r"(?P<layer>.+)\[(?P<part>q|k|v|mlp)\]", re.DOTALL)
_QKV = ("q", "k", "v")
# the rest of linear1 of a single block of Flux is the first layer of its MLP
_WITH_MLP = (*_QKV, "mlp")
_QKV_OF_LINEAR1 = "[qkv]"


def separated(adapter: Adapter, names: Sequence[str], other: Mapping[str, Update]) -> Adapter:
    """The same adapter with fused layers split of which another adapter has the parts as layers of their own.

    Parameters
    ----------
    names : of modules of `adapter` that may be split
    other : the modules of the other adapter that they may be split for

    Returns
    -------
    Adapter
        `adapter` itself where there is nothing to split, else one with notes on what was split, and on what could not
        be because the sizes do not say which rows are whose.
    """
    layers = _layers_in_parts(other)
    found = {
        name: layer
        for name, layer in (_unambiguous(names, layers) if layers else {}).items()
        if layers[layer].keys() & set(_names_of_parts(adapter[name]))
    }
    if not found:
        return adapter
    parts = {name: _parts(adapter[name], layers[layer]) for name, layer in found.items()}
    split = [name for name, updates in parts.items() if updates]
    updates = {
        update.module: update for name, own in adapter.items() for update in (parts.get(name) or [own])
    }
    notes = [Note(note) for note in _notes(split, [name for name in parts if name not in split])]
    return replace(adapter, updates=updates, notes=(*adapter.notes, *notes))


def split_like(start: Adapter, split: Adapter) -> Adapter:
    """The start of an adapter whose fused layers were split, split in the same way.

    Parameters
    ----------
    split : the adapter after `separated`
    """
    parts: dict[str, list[Update]] = defaultdict(list)
    for name, part in split.items():
        if name not in start and part.rows is not None and _PART.fullmatch(name):
            parts[name.rpartition("[")[0]].append(part)
    updates = {
        piece.module: piece
        for name, update in start.items()
        for piece in ([_begun(update, part) for part in parts[name]] if name in parts else [update])
    }
    return replace(
        start, updates={name: piece for name, piece in updates.items() if _alike(piece, split.get(name))}
    )


def _begun(update: Update, part: Update) -> Update:
    """The start of a part; B is zero there as a rule, so no rank of it is left out."""
    assert part.rows is not None
    if isinstance(update, DenseUpdate):
        return replace(update, module=part.module, matrix=update.matrix.rows(*part.rows), rows=part.rows)
    return replace(update, module=part.module, B_factor=update.B_factor.rows(*part.rows), rows=part.rows)


def _alike(piece: Update, part: Update | None) -> bool:
    return part is None or part.r == piece.r


def _notes(split: Sequence[str], unsplit: Sequence[str]) -> list[str]:
    notes = []
    if split:
        notes.append(
            f"{counted(len(split), 'fused layer')} split into q, k and v, which are separate layers in the other "
            f"adapter: {listed(split)}"
        )
    if unsplit:
        notes.append(
            f"{counted(len(unsplit), 'fused layer')} not split into the separate layers of the other adapter, since "
            f"the sizes do not say which rows are whose: {listed(unsplit)}"
        )
    return notes


def _layers_in_parts(other: Mapping[str, Update]) -> dict[str, dict[str, Update]]:
    """Name of a fused layer -> the parts of it that the other adapter has."""
    layers: dict[str, dict[str, Update]] = defaultdict(dict)
    for name, update in other.items():
        for there in names_elsewhere(name):
            match = _PART.fullmatch(there)
            if match is not None:
                layers[match["layer"]][match["part"]] = update
    return dict(layers)


def _unambiguous(names: Sequence[str], layers: Mapping[str, Mapping[str, Update]]) -> dict[str, str]:
    """Module -> the fused layer that it is, of pairs that are the only ones for both."""
    modules, flattened = Modules(layers), Flattened(layers)
    claims: dict[str, list[str]] = defaultdict(list)
    for name in names:
        bare = name.removesuffix(_QKV_OF_LINEAR1)
        hits = modules.same(bare, most=2) or flattened.same(bare)
        # two libraries may give one layer two names
        if hits and all(layers[hit] == layers[hits[0]] for hit in hits):
            claims[hits[0]].append(name)
    return {claiming[0]: layer for layer, claiming in claims.items() if len(claiming) == 1}


def _parts(update: Update, wanted: Mapping[str, Update]) -> list[Update]:
    """The updates of the parts, none where the sizes do not fit."""
    sizes = _sizes(update, wanted)
    if sizes is None:
        return []
    starts = [sum(list(sizes.values())[:n]) for n in range(len(sizes))]
    stem = update.module.removesuffix(_QKV_OF_LINEAR1)
    return [
        _part(update, f"{stem}[{part}]", (start, start + size), len(sizes))
        for start, (part, size) in zip(starts, sizes.items(), strict=True)
    ]


def _sizes(update: Update, wanted: Mapping[str, Update]) -> dict[str, int] | None:
    """Part -> its number of rows; None where the parts that the other adapter has are of another size."""
    if any(part.d_in != update.d_in for part in wanted.values()):
        return None
    names = _names_of_parts(update)
    whole = names == _WITH_MLP
    known = {name: part.d_out for name, part in wanted.items() if name in names}
    if len(known) < len(names):
        each = update.d_in if whole else update.d_out // 3
        known = {name: known.get(name, each if name in _QKV else update.d_out - 3 * each) for name in names}
    fits = sum(known.values()) == update.d_out and min(known.values()) > 0
    return {name: known[name] for name in names} if fits else None


def _names_of_parts(update: Update) -> tuple[str, ...]:
    """The parts of a fused layer, in the order of its rows."""
    return _WITH_MLP if update.module.endswith("linear1") else _QKV


def _part(update: Update, module: str, rows: tuple[int, int], count: int) -> Update:
    start = 0 if update.rows is None else update.rows[0]
    placed = (start + rows[0], start + rows[1])
    flags = (*update.flags, *(() if Flag.FUSED in update.flags else (Flag.FUSED,)))
    if isinstance(update, DenseUpdate):
        return replace(update, module=module, matrix=update.matrix.rows(*rows), rows=placed, flags=flags)
    A, B = _without_zeros(update.A_factor, update.B_factor.rows(*rows), count)
    return replace(update, module=module, A_factor=A, B_factor=B, rows=placed, flags=flags)


def _without_zeros(A: Factor, B: Factor, count: int) -> tuple[Factor, Factor]:
    """A and B of a part without the rank of other parts, where a trainer gave each part a rank of its own.

    sd-scripts (networks/lora_flux.py, ``split_dims``) writes such parts as one pair whose B is block diagonal.
    """
    r = A.shape[0]
    if r % count:
        return A, B
    kept = B.load().any(axis=0)
    if kept.all() or not kept.any():
        return A, B
    n = int(kept.sum())
    return (
        Factor((n, A.shape[1]), A.dtype, lambda: A.load()[kept], numbers=A.numbers),
        Factor((B.shape[0], n), B.dtype, lambda: B.load()[:, kept], numbers=B.numbers),
    )
