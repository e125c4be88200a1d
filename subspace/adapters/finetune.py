"""A full fine-tune as an adapter: ``delta_W = W_tuned - W_base`` for every matrix that has its shape in the base.

Weights that GPT-2 stores (d_in, d_out) and tables of embeddings are transposed, so that delta_W is (d_out, d_in) as
in every other adapter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.adapter import Adapter
from subspace.adapters.base import orientation
from subspace.adapters.base.files import weights_by_module
from subspace.adapters.base.quantised import refuse_quantised
from subspace.adapters.format import Ignored
from subspace.adapters.naming.matching import match_modules
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.place import place
from subspace.adapters.update import DenseUpdate, Factor, Update
from subspace.errors import FormatError, located
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.base.weights import BaseWeights
    from subspace.adapters.format import Source

__all__ = ["difference"]


def difference(source: Source, base: BaseWeights) -> Adapter:
    """The difference of a fine-tuned model from its base; a matrix that did not change has a zero update.

    Raises
    ------
    FormatError : the file and the base have no matrix in common, or one of the two is quantised
    """
    tuned = weights_by_module(source.tensors.layout)
    matched = match_modules(list(tuned), list(base.modules))
    updates: dict[str, Update] = {}
    reasons = {tuned[name]: "not in the base model" for name in matched.only_first}
    for name, other in matched.pairs:
        key, base_key = tuned[name], base.modules[other]
        why = _incomparable(key, base_key, source, base)
        if why is None:
            updates[name] = _update(name, key, base_key, source, base)
        else:
            reasons[key] = why
    if not updates:
        raise FormatError(
            f"No matrices in common between {source.path} and the base {place(base.path)}; give the model that it was "
            "fine-tuned from as `base`"
        )
    used = {tuned[name] for name in updates}
    ignored = [Ignored(k, reasons.get(k, "not a matrix")) for k in source.tensors.layout if k not in used]
    return Adapter(
        path=source.tensors.path,
        format="full fine-tune",
        container=source.tensors.container,
        updates={name: updates[name] for name in in_order(updates)},
        ignored=(*ignored, *(Ignored(key, why) for key, why in source.tensors.skipped.items())),
        tensors=source.tensors,
    )


def _incomparable(key: str, base_key: str, source: Source, base: BaseWeights) -> str | None:
    """Why the difference of a matrix from the base cannot be taken; None if it can."""
    mine, theirs = source.tensors.layout[key], base.tensors.layout[base_key]
    if mine.shape != theirs.shape:
        return f"of the shape {list(mine.shape)}, but {list(theirs.shape)} in the base model"
    if key.endswith(".weight"):
        refuse_quantised(key, source.tensors.layout, source.tensors.path)
        refuse_quantised(base_key, base.tensors.layout, base.path)
    numbers = ("float", "bfloat")
    if not (mine.dtype.startswith(numbers) and theirs.dtype.startswith(numbers)):
        return f"not floating point numbers ({shown(mine.dtype)}, in the base model {shown(theirs.dtype)})"
    return None


def _update(name: str, key: str, base_key: str, source: Source, base: BaseWeights) -> DenseUpdate:
    info = source.tensors.layout[key]
    shape = info.shape[0], math.prod(info.shape[1:])

    def load() -> NDArray[Any]:
        with located(f"{shown(key)} of {source.path}"):
            tuned = source.tensors.read(key).reshape(shape)
            original = base.tensors.read(base_key).reshape(shape)
            change: NDArray[Any] = np.subtract(tuned, original, dtype=np.float64)
        base.tensors.release()
        return change

    def stored() -> NDArray[Any]:
        return source.tensors.read(key).reshape(shape)

    matrix = Factor(shape, info.dtype, load, stored=stored)
    kind = "linear" if len(info.shape) == 2 else "conv"
    if len(info.shape) == 2 and base.stored_transposed(name):
        matrix = matrix.T
        kind = "embedding" if orientation.is_embedding(name) else kind
    return DenseUpdate(name, matrix, kind=kind, flags=(Flag.DENSE, Flag.FINE_TUNE))
