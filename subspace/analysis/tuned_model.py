"""A tuned model and its base: which weights are pairs, which of them can be a LoRA, and whether the two are related."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter, BaseWeights, load_adapter, load_base
from subspace.adapters.base.files import weights_by_module
from subspace.adapters.base.tied import is_head, tied_embedding
from subspace.adapters.place import place
from subspace.analysis.against_base import Scope, within_scope
from subspace.errors import FormatError

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile, TensorInfo

__all__ = ["Reason", "TunedModel", "full_name", "name_of", "tuned_key", "tuned_model"]

_LOOKED_AT, _ROWS = 8, 64  # modules, and rows of each, by which two models are related
_RELATED = 0.1  # cosine of two weights; of a fine-tune it is near 1, of two trainings from scratch near 0
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_HEADED = (*_CAUSAL, "ForMaskedLM", "ForConditionalGeneration", "ForPreTraining")


class Reason(str, Enum):
    """Why a tensor that changed is in no LoRA, as a phrase."""

    PARAMETER = "a parameter, not the weight of a layer"
    DEPTHWISE = "a convolution of each channel alone"
    ATTENTION = "of an attention layer of torch"
    TIED = "embeddings that are tied to the head"
    NEW = "not in the base model"
    RESIZED = "of another shape in the base model"
    BIAS = "a bias"
    VECTOR = "not a matrix"


@dataclass(frozen=True)
class TunedModel:
    """A model that was tuned, and its base.

    Attributes
    ----------
    base : weights of the base
    tuned : the difference, as an adapter
    source : the base, as the user gave it
    """

    base: BaseWeights
    tuned: Adapter
    source: Any

    @property
    def tensors(self) -> TensorFile:
        """The open file of the tuned model."""
        assert self.tuned.tensors is not None
        return self.tuned.tensors

    @cached_property
    def keys(self) -> dict[str, str]:
        """Module -> key in the tuned model of every matrix that has its shape in the base."""
        layout = self.tensors.layout
        every = weights_by_module(layout)
        return {module: every[module] for module in self.tuned}

    @cached_property
    def no_lora(self) -> dict[str, Reason]:
        """Module -> why PEFT can make no LoRA of its weight, of those modules of which it can make none."""
        reasons = {module: self._no_lora(module, key) for module, key in self.keys.items()}
        return {module: why for module, why in reasons.items() if why is not None}

    def loras(self, scope: Scope) -> list[str]:
        """Modules in a scope that can be a LoRA, whether they changed or not."""
        return [name for name in within_scope(self.tuned, scope) if name not in self.no_lora]

    def _no_lora(self, module: str, key: str) -> Reason | None:
        shape = self.tensors.layout[key].shape
        if not key.endswith(".weight") or len(shape) > 5:
            return Reason.PARAMETER
        if len(shape) > 2 and shape[1] == 1 and shape[0] > 1:
            return Reason.DEPTHWISE
        if f"{module.rpartition('.')[0]}.in_proj_weight" in self.tensors.layout:
            return Reason.ATTENTION
        if self.tied and (is_head(module) or module == self._table):
            return Reason.TIED
        return None

    @cached_property
    def tied(self) -> bool:
        """Whether the head of the model is its table of embeddings."""
        headed = any(name.endswith(_HEADED) for name in self.architectures)
        own = any(map(is_head, weights_by_module(self.tensors.layout)))
        return self._table is not None and (
            self.base.config.get("tie_word_embeddings") is True if own else headed
        )

    @property
    def architectures(self) -> list[str]:
        """Classes of the model, as its configuration names them."""
        names = self.base.config.get("architectures")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def is_causal(self) -> bool:
        """Whether it is a language model of transformers that predicts the next token."""
        return any(name.endswith(_CAUSAL) for name in self.architectures)

    @property
    def head(self) -> str | None:
        """Name of the head of such a model."""
        if not self.is_causal:
            return None
        return "embed_out" if self.base.model_type == "gpt_neox" else "lm_head"

    @cached_property
    def _table(self) -> str | None:
        """The table of embeddings that a head would be tied to."""
        return tied_embedding("lm_head", self.tuned, self.base.config)


def tuned_model(base: Any, tuned: Any) -> TunedModel:
    """Open both, and check that they belong together; a few rows are read.

    Raises
    ------
    FormatError : `tuned` is an adapter or a single matrix; the two have no matrix of one shape in common, or nothing
    """
    weights = load_base(base)
    adapter = load_adapter(tuned, base=weights)
    if adapter.format != "full fine-tune":
        raise FormatError(
            f"Not a whole model: {place(adapter.path)} is read as an adapter of the format {adapter.format}; give the "
            "model after training as `tuned`, or cut this adapter with subspace truncate"
        )
    model = TunedModel(weights, adapter, base)
    _require_related(model)
    return model


def _require_related(model: TunedModel) -> None:
    names = list(model.tuned)
    cosines = [_cosine(model, name) for name in names[:: max(1, len(names) // _LOOKED_AT)]]
    known = [cosine for cosine in cosines if cosine is not None]
    model.base.tensors.release()
    model.tuned.release()
    if known and max(known) < _RELATED:
        raise FormatError(
            f"Unrelated weights: the cosine between {place(model.tuned.path)} and {place(model.base.path)} is at most "
            f"{max(known):.2g} in the modules looked at, where that of a fine-tune is near 1; give the model that it "
            "was tuned from as `base`"
        )


def _cosine(model: TunedModel, name: str) -> float | None:
    """Of the first rows of a weight and its base; None where one is zero or not finite."""
    key, base_key = model.keys[name], model.base.find(name)
    if base_key is None:
        return None
    shape = model.tensors.layout[key].shape
    flat = shape[0], math.prod(shape[1:])
    one, other = (
        file.stored(each, flat).rows(0, min(_ROWS, flat[0])).astype(np.float64)
        for file, each in ((model.tensors, key), (model.base.tensors, base_key))
    )
    with np.errstate(all="ignore"):
        cosine = float(np.sum(one * other) / np.sqrt(np.sum(one**2) * np.sum(other**2)))
    return cosine if math.isfinite(cosine) else None


def tuned_key(module: str, layout: Mapping[str, TensorInfo]) -> str:
    """Key of a module's weight in the tuned model."""
    return f"{module}.weight" if f"{module}.weight" in layout else weights_by_module(layout)[module]


def full_name(module: str, base_key: str) -> str:
    """The longer of the names that a module has in the tuned model and in the base, if one ends with the other.

    Examples
    --------
    >>> full_name("h.0.mlp", "transformer.h.0.mlp.weight"), full_name("model.h.0.mlp", "h.0.mlp.weight")
    ('transformer.h.0.mlp', 'model.h.0.mlp')
    """
    in_base = base_key.removesuffix(".weight")
    return in_base if in_base.endswith(f".{module}") else module


def name_of(source: Any, config: Mapping[str, Any]) -> str | None:
    """What PEFT's configuration can say of the base: its name on the hub, or its directory; None if not known."""
    known = config.get("_name_or_path")
    if isinstance(known, str) and known:
        return known
    if not isinstance(source, str | os.PathLike):
        return None
    path = os.fsdecode(source)
    if path.startswith("hf://"):
        return path.removeprefix("hf://").partition("@")[0].partition(":")[0]
    return str(Path(path).parent) if Path(path).is_file() else path
