"""Weights of the base model by module name: found, oriented and read one at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from subspace.adapters.base import fused_layers as fusedbase
from subspace.adapters.base import orientation, quantised
from subspace.adapters.base.files import opened, weights_by_module
from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.naming.modules import Modules
from subspace.adapters.naming.translation import Hit, Translations
from subspace.adapters.update import Update
from subspace.errors import FormatError, InconclusiveError, ShapeError
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.checkpoints import StoredMatrix, TensorFile

__all__ = ["BaseWeight", "BaseWeights", "load_base"]

_HEADS = (
    ".lm_head",
    ".embed_out",
    ".proj_out",
    ".predictions.decoder",
    ".lm_head.decoder",
    ".vocab_projector",
)
_TABLES = ("embed_tokens", "wte", "shared", "word_embeddings", "embed_in")


@dataclass(frozen=True)
class BaseWeights:
    """The weights of a base model; `tensors` is not read until a weight is asked for.

    Attributes
    ----------
    modules : module -> key of every tensor that can be a weight
    config : the model's ``config.json``, empty without one
    """

    path: str
    tensors: TensorFile
    config: Mapping[str, Any] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    def require_names(self, adapter: Mapping[str, Update]) -> None:
        """Check that a base of one unnamed matrix is not asked for the weights of several modules.

        Raises
        ------
        FormatError : the matrix could be the weight of any of them
        """
        if "" in self.modules and len(adapter) > 1:
            raise FormatError(
                f"a single matrix must be the base of a single module: got {len(adapter)} modules, "
                f"in {shown(self.path, longest=1000)}; give the model, or the weights under their names"
            )

    @property
    def model_type(self) -> str | None:
        """Type of the model, as its configuration says it: "gpt2", "llama"."""
        told = self.config.get("model_type")
        return told if isinstance(told, str) else None

    @cached_property
    def _names(self) -> Modules:
        return Modules(self.modules)

    @cached_property
    def _spellings(self) -> Translations:
        return Translations(self.modules)

    @cached_property
    def _packed(self) -> dict[str, tuple[str, str]]:
        return quantised.packed_modules(self.tensors.layout)

    @cached_property
    def _packed_names(self) -> Modules:
        return Modules(self._packed)

    @cached_property
    def _conv1d(self) -> bool | None:
        return orientation.conv1d_by_shape(self.modules, self.tensors.layout)

    def find(self, module: str) -> str | None:
        """Key of a module's weight, None if the base has no such module.

        Raises
        ------
        FormatError : the name fits several modules, or the weight is quantised
        """
        name = module.partition("[")[0]
        if len(self.modules) == 1 and ("" in self.modules or name == ""):
            return next(iter(self.modules.values()))
        hit = self._one(name) or self._one(f"{name}.in_proj_weight") or self._tied(name)
        if hit is not None:
            return self.modules[hit]
        packed = self._packed_names.same(name)
        if packed:
            raise quantised.refusal(*self._packed[packed[0]], self.path)
        return None

    def _one(self, name: str) -> str | None:
        hits = self._names.same(name)
        if len(hits) > 1:
            listed = ", ".join(shown(hit) for hit in hits[:4])
            raise FormatError(
                f"a module must be one of the base: {shown(name)} could be {listed}, "
                f"in {shown(self.path, longest=1000)}; give the base that the adapter was made for"
            )
        return hits[0] if hits else None

    def _tied(self, name: str) -> str | None:
        """The table of embeddings, for a head or a table that shares it and is not in the file for that reason."""
        told = bool(self.config) and self.config.get("tie_word_embeddings") is not False
        head, table = f".{name}".endswith(_HEADS), f".{name}".endswith(".embed_tokens")
        wanted = _TABLES if head and told else ("shared",) if table else ()
        tables = [module for module in self.modules if wanted and module.rpartition(".")[2] in wanted]
        return tables[0] if len(tables) == 1 else None

    def stored_transposed(self, module: str) -> bool:
        """Whether a module's weight lies as (d_in, d_out), as far as the base alone can say."""
        if orientation.is_embedding(module):
            return True
        return orientation.square(module, model_type=self.model_type, siblings=self._conv1d)[0]

    def weight(self, update: Update) -> BaseWeight | None:
        """The weight that an update belongs to, None if the base lacks it.

        Raises
        ------
        ShapeError : the weight fits the update in neither orientation
        FormatError : the weight is quantised or ambiguous
        InconclusiveError : which rows of a fused or replicated layer the update is of, is not known
        """
        key, rows = self.find(update.module), update.rows
        if key is None:
            key, rows = self._in_a_fused_layer(update)
        if key is None:
            key = self._under_another_spelling(update)
        if key is None:
            return None
        quantised.refuse_quantised(key, self.tensors.layout, self.path)
        _require_place(key, update)
        shape = self._shape(key)
        d_out = update.d_out if rows is None else max([*_sides(shape, update), rows[1]])
        transposed, why = self._orientation(key, (d_out, update.d_in), update)
        if shape not in {(d_out, update.d_in), (update.d_in, d_out)}:
            shape = (d_out, update.d_in)
        return BaseWeight(key, _matrix(self.tensors, key, shape), transposed, why, rows)

    def spelled(self, module: str) -> tuple[str, Hit] | None:
        """The module of the base that another writer calls `module`, and how it was found; None if it is not one."""
        hits = self._spellings.same(module)
        return next(iter(hits.items())) if len(hits) == 1 else None

    def _under_another_spelling(self, update: Update) -> str | None:
        """Key of a weight that has the update's shape, and its rows in the same order."""
        found = self.spelled(update.module)
        if found is None or found[1].reordered:
            return None
        key = self.modules[found[0]]
        wanted = (update.d_out, update.d_in)
        return key if self._shape(key) in {wanted, wanted[::-1]} else None

    def _in_a_fused_layer(self, update: Update) -> tuple[str | None, tuple[int, int] | None]:
        """Key and rows of a layer that holds the module together with others."""
        fused = fusedbase.host(update.module, self._names)
        if fused is None:
            return None, None
        key = self.modules[fused]
        where = f"in module {shown(update.module)} of {shown(self.path, longest=1000)}"
        rows = fusedbase.part_rows(
            update.module,
            fused,
            d_out=update.d_out,
            total=max([*_sides(self._shape(key), update), 0]),
            model_type=self.model_type,
            error=lambda fact: FormatError(
                f"a fused layer of the base must be cut one way: {fact}, {where}; "
                "give base weights with q, k and v apart"
            ),
        )
        return key, rows

    def _shape(self, key: str) -> tuple[int, int]:
        n, *rest = self.tensors.layout[key].shape
        return n, math.prod(rest)

    def _orientation(self, key: str, wanted: tuple[int, int], update: Update) -> tuple[bool, str]:
        shape = self._shape(key)
        plain, turned = shape == wanted, shape == wanted[::-1]
        if not (plain or turned):
            return self._viewed(key, wanted, update)
        if update.kind == "embedding" and turned:
            return True, "an embedding, stored (tokens, d_out)"
        if plain and turned:
            turned, why = orientation.square(
                update.module.partition("[")[0],
                model_type=self.model_type,
                siblings=self._conv1d,
                fan_in_fan_out=update.fan_in_fan_out,
            )
            return turned, f"square: {why}"
        return turned, f"stored {'(d_in, d_out)' if turned else '(d_out, d_in)'}, by its shape"

    def _viewed(self, key: str, wanted: tuple[int, int], update: Update) -> tuple[bool, str]:
        """A convolution (out, in, k, k) that loralib multiplies as (out * k, in * k), the same numbers in order."""
        shape = self.tensors.layout[key].shape
        if len(shape) > 2 and wanted == (shape[0] * shape[-1], math.prod(shape[1:-1])):
            return False, f"a convolution {list(shape)}, viewed as loralib does"
        raise ShapeError(
            f"a base weight must have the shape of its update: got {list(shape)} for {shown(key)} and "
            f"delta_W {[update.d_out, update.d_in]} for module {shown(update.module)}, "
            f"in {shown(self.path, longest=1000)}; is it the adapter's base model?"
        )


def _sides(shape: tuple[int, int], update: Update) -> list[int]:
    """The sides of a weight that can be its outputs, the other one being the update's d_in."""
    return [side for side, other in (shape, shape[::-1]) if other == update.d_in]


def _require_place(key: str, update: Update) -> None:
    if Flag.GROUP_UNKNOWN in update.flags:
        raise InconclusiveError(
            f"the groups of a fused layer must be known: {shown(update.module)} is one of several in "
            f"{shown(key)}; say which are adapted with --enable-lora, e.g. 1,0,1 for q and v"
        )
    if Flag.LAYER_REPLICATION in update.flags:
        raise InconclusiveError(
            f"layers must have their own numbers: {shown(update.module)} is counted in a model of replicated layers "
            f"(layer_replication), {shown(key)} in the original one; give the expanded model as the base"
        )


def _matrix(tensors: TensorFile, key: str, shape: tuple[int, int]) -> StoredMatrix:
    """A weight as a matrix that is not widened yet, dimensions after the first flattened."""
    from subspace.checkpoints import StoredMatrix

    return StoredMatrix(tensors.raw(key).reshape(shape), tensors.layout[key].dtype)


def load_base(source: Any) -> BaseWeights:
    """Open base weights; nothing but headers is read.

    Parameters
    ----------
    source : one matrix (``.npy``, ``.pt``, ``.safetensors``), a file of weights, a sharded directory or its index,
        a Hugging Face model directory, a mapping of arrays, a matrix in memory, an ``nn.Module``, or a `BaseWeights`

    Raises
    ------
    FileError, FormatError : the file cannot be read, or holds no matrix
    """
    from subspace import checkpoints
    from subspace.adapters.base.model import model_config, tensors_of

    if isinstance(source, BaseWeights):
        return source
    config: Mapping[str, Any] = {}
    if isinstance(source, str | bytes | os.PathLike):
        tensors, config = opened(os.fsdecode(source))
    elif isinstance(source, Mapping):
        tensors = checkpoints.from_memory(source)
    elif hasattr(source, "state_dict"):
        tensors, config = tensors_of(source), model_config(source)
    else:
        tensors = checkpoints.from_memory({"": source})
    modules = dict(weights_by_module(tensors.layout.items()))
    if not modules:
        raise FormatError(
            f"a base must hold at least one matrix: {shown(tensors.path, longest=1000)} has none; "
            "give the weights of the model"
        )
    return BaseWeights(tensors.path, tensors, config, modules)
