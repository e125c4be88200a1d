"""A full fine-tune as an adapter: ``delta_W = W_tuned - W_base`` for every matrix that changed shape-compatibly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.adapter import Adapter
from subspace.adapters.base import weights_by_module
from subspace.adapters.format import Ignored
from subspace.adapters.naming import match_modules
from subspace.adapters.update import DenseUpdate, Factor, Update
from subspace.errors import FormatError, located, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.base import BaseWeights
    from subspace.adapters.format import Source

__all__ = ["difference"]


def difference(source: Source, base: BaseWeights) -> Adapter:
    """Updates of a fine-tuned model against its base; a matrix that did not change has a zero update.

    Raises
    ------
    FormatError : no matrix of the file has its counterpart in the base
    """
    tuned = dict(weights_by_module(source.tensors.layout.items()))
    matched = match_modules(list(tuned), list(base.modules))
    updates: dict[str, Update] = {}
    ignored = [Ignored(tuned[name], "not in the base") for name in matched.only_first]
    for name, other in matched.pairs:
        key, base_key = tuned[name], base.modules[other]
        shapes = source.tensors.layout[key].shape, base.tensors.layout[base_key].shape
        if shapes[0] != shapes[1]:
            ignored.append(
                Ignored(key, f"another shape than in the base: {list(shapes[0])}, {list(shapes[1])}")
            )
            continue
        updates[name] = _update(name, key, base_key, source, base)
    if not updates:
        raise FormatError(
            f"a fine-tune must share matrices with its base: {source.path} and {shown(base.path)} have none in common"
        )
    ignored += [Ignored(k, "not a matrix") for k in source.tensors.layout if k not in set(tuned.values())]
    return Adapter(
        path=source.tensors.path,
        format="full fine-tune",
        container=source.tensors.container,
        updates=updates,
        ignored=tuple(ignored),
        tensors=source.tensors,
    )


def _update(name: str, key: str, base_key: str, source: Source, base: BaseWeights) -> DenseUpdate:
    stored, original = source.tensors.stored(key), base.tensors.stored(base_key)

    def load() -> NDArray[Any]:
        with located(f"{shown(key)} of {source.path}"):
            # float64 weights are views of what the user or the file holds: never subtract in place
            change: NDArray[Any] = stored.full(np.float64) - original.full(np.float64)
            return change

    return DenseUpdate(name, Factor(stored.shape, stored.dtype, load), flags=("dense", "fine_tune"))
