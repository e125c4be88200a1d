"""What changed in a tuned model and can be no LoRA (norms, biases, tables of another size), and its place in PEFT."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from subspace.adapters.naming.matching import match_modules
from subspace.adapters.naming.same_input import place_of
from subspace.adapters.update import Factor
from subspace.analysis.against_base import Scope
from subspace.analysis.tuned_model import Reason, TunedModel
from subspace.checkpoints.peft_files import PREFIX
from subspace.checkpoints.widening import FLOATS
from subspace.geometry.rounding_edge import spacing

__all__ = ["Unextracted", "unextracted"]

# what models make anew when they are built
_BUFFERS = (".attn.bias", ".masked_bias", ".inv_freq", ".position_ids", ".attention.bias")


@dataclass(frozen=True)
class Unextracted:
    """A tensor of the tuned model that changed and is in no LoRA.

    Attributes
    ----------
    key : its name in the tuned model
    reason : why it is in no LoRA
    why : the same in words
    keys : name in PEFT's file -> name in the tuned model of what is stored for it; empty where nothing is
    module : to be named in PEFT's ``modules_to_save``; None for the bias of a layer, which its ``bias`` is about
    """

    key: str
    reason: Reason
    why: str
    keys: Mapping[str, str]
    module: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the tensor as an object of strict JSON."""
        return {"key": self.key, "why": self.why, "saved": bool(self.keys)}


def unextracted(
    model: TunedModel, scope: Scope, *, targets: Collection[str], save: bool
) -> list[Unextracted]:
    """What changed in a scope and is in no LoRA, in the order of the tuned model.

    Parameters
    ----------
    targets : modules that have a LoRA
    save : whether to find the place of each in PEFT's file
    """
    of_loras = {key for module, key in model.keys.items() if module not in model.no_lora}
    layout = model.tensors.layout
    left = [
        key for key, info in layout.items()
        if key not in of_loras and info.dtype in FLOATS and not key.endswith(_BUFFERS) and _within(key, scope)
    ]  # fmt: skip
    pairs = dict(match_modules(left, list(model.base.tensors.layout)).pairs)
    why_not = {model.keys[module]: reason for module, reason in model.no_lora.items()}
    found = []
    for key in left:
        base_key = pairs.get(key) or _tied(model, key)
        reason = _changed(model, key, base_key, why_not)
        if reason is not None:
            found.append(Unextracted(key, reason, _in_words(model, key, base_key, reason), {}))
    return [_placed(each, model, targets) for each in found] if save else found


def _within(key: str, scope: Scope) -> bool:
    module = key.rpartition(".")[0]
    named = not scope.modules or any(fnmatchcase(module, pattern) for pattern in scope.modules)
    return named and (not scope.layers or bool(set(place_of(module).layer[:1]) & set(scope.layers)))


def _tied(model: TunedModel, key: str) -> str | None:
    """The table that the base has in the place of a head that it leaves out."""
    return model.base.find(key.removesuffix(".weight")) if key.endswith(".weight") else None


def _changed(
    model: TunedModel, key: str, base_key: str | None, why_not: Mapping[str, Reason]
) -> Reason | None:
    """Why a tensor that changed is in no LoRA; None where it did not change."""
    if base_key is None:
        return Reason.NEW
    info, original = model.tensors.layout[key], model.base.tensors.layout[base_key]
    if info.shape != original.shape:
        return Reason.RESIZED
    if original.dtype not in FLOATS or _same(model, key, base_key):
        return None
    return why_not.get(key, Reason.BIAS if key.endswith("bias") else Reason.VECTOR)


def _in_words(model: TunedModel, key: str, base_key: str | None, reason: Reason) -> str:
    if reason is not Reason.RESIZED or base_key is None:
        return reason.value
    shapes = (
        list(file.layout[k].shape) for file, k in ((model.tensors, key), (model.base.tensors, base_key))
    )
    return "of the shape {}, but {} in the base model".format(*shapes)


def _same(model: TunedModel, key: str, base_key: str) -> bool:
    """Whether two tensors are equal, or of different types and equal but for rounding to the coarser one."""
    types = [model.tensors.layout[key].dtype, model.base.tensors.layout[base_key].dtype]
    if types[0] == types[1]:
        same = np.array_equal(model.tensors.raw(key), model.base.tensors.raw(base_key))
    else:
        one, other = (
            file.read(each).astype(np.float64)
            for file, each in ((model.tensors, key), (model.base.tensors, base_key))
        )
        coarser = max((Factor((1, 1), each, lambda: one) for each in types), key=lambda each: each.resolution)
        same = bool(np.all(np.abs(one - other) <= spacing(other, coarser.resolution, coarser.smallest_step)))
    model.base.tensors.release()
    model.tuned.release()
    return same


def _placed(found: Unextracted, model: TunedModel, targets: Collection[str]) -> Unextracted:
    """The tensor with its place in PEFT's file, where there is one.

    References
    ----------
    huggingface/peft 0.21, utils/save_and_load.py: ``set_peft_model_state_dict``; utils/other.py: ``_set_trainable``.
    """
    layout, (module, _, part) = model.tensors.layout, found.key.rpartition(".")
    weight = layout.get(f"{module}.weight")
    if part == "bias" and weight is not None and len(weight.shape) > 1:
        inner = "base_layer." if module in targets else ""
        return replace(found, keys={f"{PREFIX}{module}.{inner}bias": found.key})
    below = [key for key in layout if key.startswith(f"{module}.")]
    leaf = all("." not in key[len(module) + 1 :] for key in below)
    # PEFT takes every module whose name ends in that of one to save
    modules = {key.rpartition(".")[0] for key in layout}
    alone = not any(other != module and other.endswith(module) for other in modules)
    if part not in ("weight", "bias") or not (module and leaf and alone) or found.reason is Reason.ATTENTION:
        return found
    keys = {f"{PREFIX}{key}": key for key in below}
    if found.reason is Reason.TIED:
        # PEFT reads the head too, which it ties to the table
        if model.head is None:
            return found
        keys[f"{PREFIX}{model.head}.weight"] = found.key
    return replace(found, keys=keys, module=module)
