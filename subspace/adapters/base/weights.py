"""Weights of the base model by module name, read one at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from subspace.adapters.base import fused_layers, orientation, quantised
from subspace.adapters.base.dequantised import Dequantised, dequantised
from subspace.adapters.base.experts import expert_in_parameter, expert_weight
from subspace.adapters.base.files import opened, weights_by_module
from subspace.adapters.base.tied import tied_embedding
from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.naming.containers import Containers
from subspace.adapters.naming.modules import Modules
from subspace.adapters.naming.translation import Hit, Translations
from subspace.adapters.naming.wrappers import without_wrappers
from subspace.adapters.place import place
from subspace.adapters.update import Update
from subspace.errors import FormatError, InconclusiveError, ShapeError
from subspace.flags import Flag
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile

__all__ = ["BaseWeight", "BaseWeights", "load_base"]


@dataclass(frozen=True)
class BaseWeights:
    """The weights of a base model, found by the names of the modules of an adapter.

    Made by `load_base`. A weight is read when it is used.

    Attributes
    ----------
    path : str
        The file of the weights, or "the state dict in memory".
    tensors : TensorFile
        The open file.
    config : mapping
        The model's ``config.json``, empty without one.
    modules : mapping of str to str
        Module -> key in the file of every tensor that can be a weight.
    """

    path: str
    tensors: TensorFile
    config: Mapping[str, Any] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    def require_names(self, adapter: Mapping[str, Update]) -> None:
        """Check that a base that is a single matrix is not used for several modules.

        Raises
        ------
        FormatError : the matrix could be the weight of any of them
        """
        if "" in self.modules and len(adapter) > 1:
            raise FormatError(
                f"The base is a single matrix and the adapter has {counted(len(adapter), 'module')}: it is unclear "
                f"whose weight it is, in {place(self.path)}; give the model, or its weights by module name"
            )

    @property
    def model_type(self) -> str | None:
        """Type of the model by its configuration, such as "gpt2" or "llama"; None if unknown."""
        value = self.config.get("model_type")
        return value if isinstance(value, str) else None

    @cached_property
    def _names(self) -> Modules:
        return Modules(self.modules)

    @cached_property
    def _translations(self) -> Translations:
        return Translations(self.modules)

    @cached_property
    def _containers(self) -> Containers:
        return Containers(self.modules)

    @cached_property
    def _packed(self) -> dict[str, tuple[str, str]]:
        return quantised.packed_modules(self.tensors.layout)

    @cached_property
    def _packed_names(self) -> Modules:
        return Modules(self._packed)

    @cached_property
    def _conv1d(self) -> bool | None:
        return orientation.conv1d_by_shape(self.modules, self.tensors.layout)

    @cached_property
    def stacked_names(self) -> list[str]:
        """Last parts of the names of parameters of three dimensions, such as those of all experts of a layer."""
        layout = self.tensors.layout
        stacked = (module for module, key in self.modules.items() if len(layout[key].shape) == 3)
        return list(dict.fromkeys(module.rpartition(".")[2] for module in stacked))

    def named(self, name: str) -> list[str]:
        """The modules that a name could be of: the equal one alone, else those of which one ends with the other."""
        return self._names.same(name)

    def find(self, module: str) -> str | None:
        """Key of a module's weight, None if the base has no such module.

        Raises
        ------
        FormatError : the name fits several modules, or the weight is quantised
        """
        name = module.partition("[")[0]
        if len(self.modules) == 1 and ("" in self.modules or name == ""):
            return next(iter(self.modules.values()))
        hit = self._one(name) or self._one(f"{name}.in_proj_weight")
        hit = hit or tied_embedding(name, self.modules, self.config)
        if hit is not None:
            return self.modules[hit]
        packed = self._packed_names.same(name)
        if packed:
            raise quantised.refusal(*self._packed[packed[0]], self.path)
        return None

    def _one(self, name: str) -> str | None:
        hits = self._names.same(name)
        if len(hits) > 1:
            # of the language model and of a vision encoder, the name says which
            hits = self._containers.same(name) if len(self._containers.same(name)) == 1 else hits
        if len(hits) > 1:
            raise FormatError(
                f"Cannot tell which module of the base is {shown(name)}: it could be {listed(hits, most=4)}, "
                f"in {place(self.path)}; give the base model that the adapter was trained on"
            )
        return hits[0] if hits else None

    def stored_transposed(self, module: str) -> bool:
        """Whether a module's weight is stored (d_in, d_out), as far as the base alone can say."""
        if orientation.is_embedding(module):
            return True
        return orientation.square(module, model_type=self.model_type, siblings=self._conv1d)[0]

    def weight(self, update: Update) -> BaseWeight | None:
        """The weight that an update changes, None if the base has no such module.

        Raises
        ------
        ShapeError : the weight fits the update in neither orientation
        FormatError : the weight is quantised or ambiguous
        InconclusiveError : it is not known which rows of a fused layer, or which replicated layer, the update is of
        """
        if Flag.EXPERT in update.flags:
            return expert_weight(self, update)
        key, rows = self.find(update.module), update.rows
        if key is None:
            key, rows = self._in_a_fused_layer(update)
        if key is None:
            key = self._translated(update)
        if key is None:
            return expert_in_parameter(self, update)
        codes = self._codes(key)
        if codes is None:
            quantised.refuse_quantised(key, self.tensors.layout, self.path)
        _require_place(key, update)
        shape = self._shape(key)
        d_out = update.d_out if rows is None else max([*_sides(shape, update), rows[1]])
        transposed, why = self._orientation(key, (d_out, update.d_in), update)
        if shape not in {(d_out, update.d_in), (update.d_in, d_out)}:
            shape = (d_out, update.d_in)
        if codes is not None:
            return BaseWeight(key, codes.matrix, transposed, why, rows, codes.how)
        return BaseWeight(key, self.tensors.stored(key, shape), transposed, why, rows)

    def translated(self, module: str) -> tuple[str, Hit] | None:
        """The one module of the base that another library calls `module`, and how it was found; None without one."""
        hits = self._translations.same(module)
        return next(iter(hits.items())) if len(hits) == 1 else None

    def _translated(self, update: Update) -> str | None:
        """Key of a weight under a translated name, of the update's shape and with its rows in the same order."""
        found = self.translated(update.module)
        if found is None or found[1].reordered:
            return None
        key = self.modules[found[0]]
        wanted = (update.d_out, update.d_in)
        return key if self._shape(key) in {wanted, wanted[::-1]} else None

    def _in_a_fused_layer(self, update: Update) -> tuple[str | None, tuple[int, int] | None]:
        """Key and rows of a fused layer that holds the module, (None, None) without one."""
        fused = fused_layers.host(update.module, self._names)
        if fused is None:
            return None, None
        key = self.modules[fused]
        rows = fused_layers.part_rows(
            update.module,
            fused,
            d_out=update.d_out,
            total=max([*_sides(self._shape(key), update), 0]),
            model_type=self.model_type,
            error=lambda fact: FormatError(
                f"Cannot tell which rows of the base belong to module {shown(update.module)}: {fact}, in "
                f"{place(self.path)}; give base weights with q, k and v apart"
            ),
        )
        return key, rows

    def _codes(self, key: str) -> Dequantised | None:
        return dequantised(self.tensors, key, self.config)

    def _shape(self, key: str) -> tuple[int, int]:
        if self.tensors.layout[key].dtype == "uint8":
            codes = self._codes(key)
            if codes is not None:
                return codes.matrix.shape
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
            return turned, f"square, {why}"
        return turned, f"stored {'(d_in, d_out)' if turned else '(d_out, d_in)'}, by its shape"

    def _viewed(self, key: str, wanted: tuple[int, int], update: Update) -> tuple[bool, str]:
        """A convolution (out, in, k, k) that loralib reshapes to (out * k, in * k), the numbers in the same order."""
        shape = self.tensors.layout[key].shape
        if len(shape) > 2 and wanted == (shape[0] * shape[-1], math.prod(shape[1:-1])):
            return False, f"a convolution {list(shape)}, flattened as loralib does"
        raise ShapeError(
            f"The base weight {shown(key)} does not have the shape of its update: it is {list(shape)} and delta_W of "
            f"module {shown(update.module)} is {[update.d_out, update.d_in]}, in {place(self.path)}; give the base "
            "model that the adapter was trained on"
        )


def _sides(shape: tuple[int, int], update: Update) -> list[int]:
    """The sides of a weight that can be its outputs: the other one is the update's d_in."""
    return [side for side, other in (shape, shape[::-1]) if other == update.d_in]


def _require_place(key: str, update: Update) -> None:
    if Flag.GROUP_UNKNOWN in update.flags:
        raise InconclusiveError(
            f"Cannot tell which rows of {shown(key)} belong to module {shown(update.module)}: its file does not say "
            "which groups of the fused layer are adapted; say it with `enable_lora`, such as 1,0,1 for q and v"
        )
    if Flag.LAYER_REPLICATION in update.flags:
        raise InconclusiveError(
            f"Cannot tell which layer of the base belongs to module {shown(update.module)}: its layers are numbered "
            f"after layer_replication, those of the base ({shown(key)}) before; give the replicated model as the base"
        )


def load_base(source: Any) -> BaseWeights:
    """Open the weights of a base model; only headers are read here.

    Parameters
    ----------
    source : str, path, mapping, array, nn.Module or BaseWeights
        Path of a file of weights, of an index of shards or of a Hugging Face model directory; ``hf://org/name``
        of the Hugging Face hub; a file or array that is one matrix, the base of an adapter of one module; a mapping of
        names to arrays or tensors; a model in memory; or a `BaseWeights`, which is returned unchanged.

    Returns
    -------
    BaseWeights
        The weights by module name.

    Raises
    ------
    FileError : the file is missing, damaged or unsafe to read, or a directory does not say which file it is
    FormatError : the file holds no matrix, or adapters are merged into the weights of a model in memory

    Examples
    --------
    >>> import numpy as np
    >>> load_base({"h.0.q.weight": np.eye(3)}).modules
    {'h.0.q': 'h.0.q.weight'}
    """
    from subspace import checkpoints
    from subspace.adapters.base.model import model_config, require_unmerged, tensors_of

    if isinstance(source, BaseWeights):
        return source
    config: Mapping[str, Any] = {}
    if isinstance(source, str | bytes | os.PathLike):
        tensors, config = opened(os.fsdecode(source))
    elif isinstance(source, Mapping):
        tensors = checkpoints.from_memory(source)
    elif hasattr(source, "state_dict"):
        require_unmerged(source)
        tensors, config = tensors_of(source), model_config(source)
    else:
        tensors = checkpoints.from_memory({"": source})
    clean, names = without_wrappers(tensors)
    modules = {module: names.stored[key] for module, key in weights_by_module(clean.layout).items()}
    if not modules:
        raise FormatError(
            f"There is no weight matrix in the base, {place(tensors.path)}; give the weights of the model"
        )
    return BaseWeights(tensors.path, tensors, config, modules)
