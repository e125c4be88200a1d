"""phi between the layers of one kind of module, over the pairs of a library: does the layer matter?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.naming.same_input import place_of
from subspace.geometry.all_pairs import phi_between
from subspace.geometry.stacked_spans import stacked
from subspace.results.library import LayerPairs

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from subspace.analysis.collection import Collection

__all__ = ["layer_pairs"]

_MOST = 48  # adapters that the mean is over, and layers


def layer_pairs(collection: Collection, side: Any) -> list[LayerPairs]:
    """Mean phi of layer l of one adapter and layer k of another, for every kind of module in two layers or more.

    At most 48 adapters that have all layers of a kind, and 48 layers, evenly chosen.
    """
    kinds: dict[tuple[Hashable, int, int], list[str]] = defaultdict(list)
    for module in collection.modules:
        place = place_of(module)
        if place.layer:
            form = collection.forms(module, collection.holders(module)[:1])[0]
            kinds[place.kind, form.left.shape[1], form.right.shape[1]].append(module)
    found = []
    for (kind, _, _), modules in kinds.items():
        modules.sort(key=lambda name: place_of(name).layer)
        chosen = _spread(modules)
        members = sorted(set.intersection(*(set(collection.holders(module)) for module in chosen)))
        if len(chosen) > 1 and len(members) > 1:
            found.append(_of_kind(collection, str(kind), chosen, _spread(members), side))
    return found


def _of_kind(
    collection: Collection, kind: str, modules: Sequence[str], members: Sequence[int], side: Any
) -> LayerPairs:
    spans = [stacked(collection.forms(module, members)).spans(side) for module in modules]
    L = len(modules)
    phi = np.full((L, L), np.nan)
    for one in range(L):
        for other in range(one, L):
            phi[one, other] = phi[other, one] = _mean(phi_between(spans[one], spans[other]))
    k = np.maximum.outer(spans[0].k, spans[0].k)
    layers = tuple(int(place_of(module).layer[0]) for module in modules)
    return LayerPairs(kind, side, layers, tuple(map(tuple, phi.tolist())), _mean(k / spans[0].d))


def _mean(values: NDArray[Any]) -> float:
    """Mean over pairs of different adapters."""
    others = values[~np.eye(len(values), dtype=bool)]
    known = others[~np.isnan(others)]
    return float(known.mean()) if len(known) else float("nan")


def _spread(values: Sequence[Any]) -> list[Any]:
    if len(values) <= _MOST:
        return list(values)
    return [values[n] for n in np.linspace(0, len(values) - 1, _MOST).astype(int)]
