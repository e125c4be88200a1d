"""Base weights of the experts of a layer: one parameter of three dimensions, or a layer for each expert.

transformers 5 keeps all experts in ``experts.gate_up_proj`` (experts, 2 m, d) and ``experts.down_proj``
(experts, d, m), or (experts, d, 2 m) and (experts, m, d) in the models whose experts have ``is_transposed``. Its
files, and transformers 4, have ``experts.3.gate_proj``, ``experts.3.up_proj`` and ``experts.3.down_proj`` for most of
them, w1, w3 and w2 for Mixtral.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters.base.quantised import refuse_quantised
from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.place import place
from subspace.errors import ShapeError, SubspaceError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.base.weights import BaseWeights
    from subspace.adapters.update import Update

__all__ = ["expert_in_parameter", "expert_weight", "parameter_shape"]

_LAYERS = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
_IN_PARAMETER = {
    "gate_proj": ("gate_up_proj", 0), "w1": ("gate_up_proj", 0), "up_proj": ("gate_up_proj", 1),
    "w3": ("gate_up_proj", 1), "down_proj": ("down_proj", None), "w2": ("down_proj", None),
}  # fmt: skip
# Mixtral has another name in its files, and in transformers 4, than in transformers 5
_PARENTS = (("mlp.experts", "block_sparse_moe.experts"), ("block_sparse_moe.experts", "mlp.experts"))
# transformers 5: the models whose experts are (experts, d_in, d_out)
_TRANSPOSED = {"gpt_oss", "aria", "aria_text", "openai_privacy_filter"}
_MOST_NAMES = 16


def parameter_shape(base: BaseWeights, parameter: str) -> tuple[int, ...] | None:
    """Shape of a parameter of the base, None if there is none of that name."""
    try:
        key = base.find(parameter.removesuffix(".weight"))
    except SubspaceError:  # it is ambiguous or quantised, which whoever needs the numbers says
        return None
    return None if key is None else base.tensors.layout[key].shape


def expert_weight(base: BaseWeights, update: Update) -> BaseWeight | None:
    """The weight of one expert for the update ``module[n]``, None if the base has no such experts.

    Raises
    ------
    ShapeError : the weight fits the update in neither orientation
    FormatError : the weight is quantised or ambiguous
    """
    name, n = _split(update.module)
    key = base.find(name) or _only_fitting(base, name, n, update)
    if key is None:
        return _of_layers(base, name, n, update)
    refuse_quantised(key, base.tensors.layout, base.path)
    shape = base.tensors.layout[key].shape
    if len(shape) != 3 or n >= shape[0]:
        raise _unlike(base, key, shape, update)
    return _weight(base, key, base.tensors.raw(key)[n], update)


def expert_in_parameter(base: BaseWeights, update: Update) -> BaseWeight | None:
    """The weight of a layer of one expert, ``experts.3.up_proj``, in a base that has all experts in one parameter."""
    parent, _, last = update.module.rpartition(".")
    own, _, number = parent.rpartition(".")
    if last not in _IN_PARAMETER or not (number.isascii() and number.isdigit()) or len(number) > 6:
        return None
    parameter, part = _IN_PARAMETER[last]
    key = next((key for name in _parents(own) if (key := base.find(f"{name}.{parameter}"))), None)
    shape = () if key is None else base.tensors.layout[key].shape
    d_out = update.d_out if part is None else 2 * update.d_out
    if key is None or shape[1:] != (d_out, update.d_in) or int(number) >= shape[0]:
        return None
    refuse_quantised(key, base.tensors.layout, base.path)
    rows = None if part is None else (part * update.d_out, (part + 1) * update.d_out)
    return _weight(base, key, base.tensors.raw(key)[int(number)], update, rows=rows)


def _split(module: str) -> tuple[str, int]:
    """Name and number of an expert: "experts.up[3]" -> ("experts.up", 3)."""
    name, _, number = module.rpartition("[")
    return name, int(number.rstrip("]"))


def _only_fitting(base: BaseWeights, name: str, n: int, update: Update) -> str | None:
    """The one parameter of a module that has the shape of an update, which is named by the module alone."""
    own = ".".join(part for part in name.split(".") if part != "base_layer")
    keys = {
        base.modules[hit] for last in base.stacked_names[:_MOST_NAMES] for hit in base.named(f"{own}.{last}")
    }
    sides = {(update.d_out, update.d_in), (update.d_in, update.d_out)}
    fitting = [
        key
        for key in sorted(keys)
        if (shape := base.tensors.layout[key].shape)[1:] in sides and len(shape) == 3 and n < shape[0]
    ]
    return fitting[0] if len(fitting) == 1 else None


def _of_layers(base: BaseWeights, name: str, n: int, update: Update) -> BaseWeight | None:
    """The weight of an expert from a base that has a layer, or two that are fused in the update, for each expert."""
    own, _, last = name.rpartition(".")
    for parent in _parents(own):
        for layers in _LAYERS.get(last, ((last,),)):
            keys = [base.find(f"{parent}.{n}.{layer}") for layer in layers]
            found = [key for key in keys if key is not None]
            if len(found) == len(layers):
                return _joined(base, found, update)
    return None


def _joined(base: BaseWeights, keys: list[str], update: Update) -> BaseWeight:
    for key in keys:
        refuse_quantised(key, base.tensors.layout, base.path)
    shapes = [base.tensors.layout[key].shape for key in keys]
    if any(len(shape) != 2 or shape[1:] != shapes[0][1:] for shape in shapes):
        raise _unlike(base, keys[0], shapes[0], update)
    raw = [base.tensors.raw(key) for key in keys]
    return _weight(base, keys[0], raw[0] if len(raw) == 1 else np.concatenate(raw), update, also=keys[1:])


def _parents(own: str) -> Iterator[str]:
    yield own
    for old, new in _PARENTS:
        if f".{own}".endswith(f".{old}"):
            yield own.removesuffix(old) + new


def _weight(
    base: BaseWeights,
    key: str,
    raw: NDArray[np.generic],
    update: Update,
    *,
    rows: tuple[int, int] | None = None,
    also: list[str] | None = None,
) -> BaseWeight:
    from subspace.checkpoints import StoredMatrix

    wanted = (raw.shape[0] if rows else update.d_out, update.d_in)
    plain, turned = raw.shape == wanted, raw.shape == wanted[::-1]
    if not (plain or turned):
        raise _unlike(base, key, raw.shape, update)
    if plain and turned:
        turned, why = _square(base, update)
    else:
        why = f"stored {'(d_in, d_out)' if turned else '(d_out, d_in)'}, by its shape"
    stored = StoredMatrix(raw, base.tensors.layout[key].dtype)
    return BaseWeight(" and ".join([key, *(also or [])]), stored, turned, why, rows)


def _square(base: BaseWeights, update: Update) -> tuple[bool, str]:
    """Whether a square weight is stored (d_in, d_out), and what decided that."""
    if update.fan_in_fan_out is not None:
        return update.fan_in_fan_out, "square, as PEFT takes it in the model"
    if base.model_type in _TRANSPOSED:
        return True, "square, stored (d_in, d_out), by the model type"
    return False, "square, taken as stored (d_out, d_in)"


def _unlike(base: BaseWeights, key: str, shape: tuple[int, ...], update: Update) -> ShapeError:
    return ShapeError(
        f"The base weight {shown(key)} does not have the shape of its update: it is {list(shape)} and delta_W of "
        f"module {shown(update.module)} is {[update.d_out, update.d_in]}, in {place(base.path)}; give the base model "
        "that the adapter was trained on"
    )
