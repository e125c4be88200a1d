"""phi of one kind of module between all layers: of two adapters, or in the mean over pairs of a library."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from subspace.adapters.naming.same_input import place_of

if TYPE_CHECKING:
    from subspace.analysis.collection import Collection
    from subspace.geometry.canonical import Canonical
    from subspace.geometry.lapack import Floats

__all__ = ["LayerPhi", "layer_by_layer"]

_MEMBERS = 10  # adapters of a library that the mean is taken over, evenly chosen
_LAYERS = 64
_Spans: TypeAlias = "dict[int, Floats]"  # of one module: orthonormal rows by the number of the member


@dataclass(frozen=True, eq=False)
class LayerPhi:
    """phi of one kind of module between its layers.

    Attributes
    ----------
    layers : numbers of the layers, ascending
    phi : (L, L); layer of the first adapter (row) with layer of the second (column), NaN where no pair has both
    chance : mean of phi of isotropic random spans of these dimensions
    """

    layers: tuple[int, ...]
    phi: Floats
    chance: float


def layer_by_layer(
    collection: Collection, *, side: str = "b", pair: tuple[int, int] | None = None
) -> dict[str, LayerPhi]:
    """Phi at full rank between all layers, by the kind of module.

    Parameters
    ----------
    collection : Collection
    side : {"a", "b", "left", "right"}
        "a" and "b" are the whole row space of A and column space of B, "right" and "left" those of delta_W.
    pair : (int, int), optional
        Two members. None: the mean over all pairs of 10 members, evenly chosen, each pair in both orders, so that
        `LayerPhi.phi` is symmetric.

    Returns
    -------
    dict of str to LayerPhi
        Of kinds that are in two layers or more, of one dimension, at most 64 layers of each.

    Notes
    -----
    O(L^2 N^2 r^2 d) for a kind, N being 2 or at most 10; in memory are the spans of one kind.
    """
    members = _chosen(len(collection.members)) if pair is None else list(pair)
    found = {}
    for kind, modules in _kinds(collection.modules):
        spans = [_spans(collection, module, members, side) for _, module in modules]
        if len({V.shape[1] for layer in spans for V in layer.values()}) != 1:
            continue
        first = spans if pair is None else [_only(layer, pair[0]) for layer in spans]
        second = spans if pair is None else [_only(layer, pair[1]) for layer in spans]
        phi, chance = _grid(first, second)
        if not np.isnan(phi).all():
            found[kind] = LayerPhi(tuple(number for number, _ in modules), phi, chance)
    return found


def _chosen(n: int) -> list[int]:
    return sorted({int(k) for k in np.linspace(0, n - 1, min(n, _MEMBERS)).round()})


def _kinds(modules: Sequence[str]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Kinds of modules whose names differ in their first number alone, and their layers."""
    found: dict[tuple[str, tuple[int, ...]], list[tuple[int, str]]] = defaultdict(list)
    for module in modules:
        place = place_of(module)
        if place.layer:
            found[place.kind, place.layer[1:]].append((place.layer[0], module))
    for (kind, rest), layers in found.items():
        if len(layers) > 1:
            name = kind
            for number in rest:  # the first "*" is the layer
                first = name.index("*") + 1
                name = name[:first] + name[first:].replace("*", str(number), 1)
            yield name, sorted(layers)[:_LAYERS]


def _spans(collection: Collection, module: str, members: Sequence[int], side: str) -> _Spans:
    """Orthonormal rows of a module's side in those of the members that have it."""
    held = set(collection.holders(module))
    numbers = [n for n in members if n in held]
    forms = collection.forms(module, numbers) if numbers else []
    spans = {n: _rows(form, side) for n, form in zip(numbers, forms, strict=True)}
    return {n: V for n, V in spans.items() if len(V)}


def _only(spans: _Spans, member: int) -> _Spans:
    return {member: spans[member]} if member in spans else {}


def _rows(form: Canonical, side: str) -> Floats:
    whole = form.right if side in ("a", "right") else form.left
    return whole if side in ("a", "b") else whole[: form.k]


def _grid(first: Sequence[_Spans], second: Sequence[_Spans]) -> tuple[Floats, float]:
    """Mean of phi over the pairs for every two layers, and the mean of isotropic random spans."""
    L = len(first)
    phi, chance = np.full((L, L), np.nan), []
    for row, column in product(range(L), repeat=2):
        if first is second and column < row:  # the pairs in both orders: symmetric
            phi[row, column] = phi[column, row]
            continue
        values, random = _of_pairs(first[row], second[column])
        if values.size:
            phi[row, column] = values.mean()
            chance.append(float(random.mean()))
    return phi, float(np.mean(chance)) if chance else float("nan")


def _of_pairs(first: _Spans, second: _Spans) -> tuple[Floats, Floats]:
    """Phi of every member of the first with every other of the second, and the mean of random spans; flat."""
    if not first or not second:
        return np.empty(0), np.empty(0)
    k, k_other = (np.array([len(V) for V in spans.values()]) for spans in (first, second))
    squares = (np.vstack(list(first.values())) @ np.vstack(list(second.values())).T) ** 2
    starts = [np.concatenate([[0], np.cumsum(sizes)[:-1]]) for sizes in (k, k_other)]
    energy = np.add.reduceat(np.add.reduceat(squares, starts[0], axis=0), starts[1], axis=1)
    others = np.not_equal.outer(list(first), list(second))
    d = next(iter(first.values())).shape[1]
    return (energy / np.minimum.outer(k, k_other))[others], (np.maximum.outer(k, k_other) / d)[others]
