"""A saved adapter put back into a model: one of `save`, of ``subspace train``, or of PEFT."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subspace.checkpoints import TensorFile, open_tensors
from subspace.checkpoints.json_files import read_json
from subspace.checkpoints.peft_files import PREFIX
from subspace.checkpoints.weights_files import ADAPTER_WEIGHTS, CONFIG
from subspace.checkpoints.widening import FLOATS
from subspace.errors import FileError, FormatError, ShapeError, located
from subspace.text import counted, listed, shown
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.injection import DEFAULT, inject
from subspace.training.layer_types import adapted_class
from subspace.training.method import Method
from subspace.training.methods import every
from subspace.training.module_patterns import Exact, adaptable, bare_name, last_parts
from subspace.training.saving import LABELS, START
from subspace.training.wrappers import unwrapped

__all__ = ["load", "tensor_of"]

Parts = dict[str, dict[str, Tensor]]


def load(model: nn.Module, path: str | os.PathLike[str], *, name: str = DEFAULT) -> list[str]:
    """Put a saved adapter into a model, with its kept modules, as `inject` puts a new one; return the adapted modules.

    It is the active adapter then, and all that is trained. The model is unchanged where an error is raised.

    Parameters
    ----------
    model : the base that the adapter was trained on; it may have other adapters
    path : a directory of `save`, ``subspace train`` or PEFT (LoRA, IA3) for a model whose modules have the same names
    name : of the adapter in the model

    Returns
    -------
    list of str : names of the adapted modules, in the model's order

    Raises
    ------
    FileError : no adapter in the directory, or a damaged one
    FormatError : a kind of adapter that cannot be loaded, or contradicts itself
    ShapeError : the model has no module of such a name, or one of another shape
    ValueRangeError : the model has an adapter of this name already, a module that is adapted and kept

    Notes
    -----
    Several groups of a fused layer come back as PEFT has them: as one pair of A and B, of their ranks together.
    """
    model, folder = unwrapped(model), Path(path)
    saved = _Saved.read(folder)
    modules = {bare_name(module): layer for module, layer in model.named_modules()}
    values = {bare_name(key): value for key, value in model.state_dict(keep_vars=True).items()}
    _require_there(saved, modules, values, model)
    for module, parts in saved.parts.items():
        _require_fit(saved.methods[module], modules[module], module, parts)
    starts, named = _starts(folder, saved), _class_names(folder)
    first = min(saved.methods.values(), key=lambda method: getattr(method, "r", 0))
    parameters = {bare_name(key) for key, _ in model.named_parameters(remove_duplicate=False)}
    keep = [Exact(key) for key in saved.kept if key in parameters]
    chosen = inject(model, first, [Exact(module) for module in saved.parts], keep=keep, name=name)
    with torch.no_grad():
        for module in chosen:
            _put(modules[module], name, saved, module, starts.get(module))
        for key, value in saved.kept.items():
            values[key].copy_(value)
    config = getattr(model, "config", None)
    if named and config is not None and hasattr(config, "id2label"):
        config.id2label, config.label2id = named, {label: number for number, label in named.items()}
    return chosen


@dataclass(frozen=True)
class _Saved:
    """What is in a directory: the method and the parameters of each module, and other tensors by name."""

    where: str
    methods: dict[str, Method]
    parts: Parts
    kept: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> _Saved:
        where = shown(folder, longest=1000)
        if not (folder / CONFIG).is_file():
            raise FileError(
                f"No adapter in {where}: there is no {CONFIG}; give a directory that `save`, PEFT or subspace train "
                "wrote"
            )
        config = read_json(folder / CONFIG)
        kind = _method_of(config, where)
        with located(where):
            parts, kept = _sorted_out(_weights(folder, where), kind)
            methods = {module: kind.from_peft(config, module, held) for module, held in parts.items()}
        return cls(where, methods, parts, kept)


def _method_of(config: Mapping[str, Any], where: str) -> type[Method]:
    known = [method for method in every().values() if method.stored]
    found = next((method for method in known if method.is_in(config)), None)
    if found is None:
        names = listed((method.name.upper() for method in known), most=8)
        raise FormatError(
            f"Adapters of type {shown(config.get('peft_type'))} cannot be loaded, in {where}; those of {names} can"
        )
    return found


def _weights(folder: Path, where: str) -> dict[str, Tensor]:
    found = next((folder / each for each in ADAPTER_WEIGHTS[:2] if (folder / each).is_file()), None)
    if found is None:
        raise FileError(f"No weights in {where}: there is no {ADAPTER_WEIGHTS[0]}; save the adapter again")
    file = open_tensors(found)
    return {bare_name(key.removeprefix(PREFIX)): tensor_of(file, key) for key in file.layout}


def tensor_of(file: TensorFile, key: str) -> Tensor:
    """Return a tensor of a file, in float32 at least if it is of floating type."""
    array = file.read(key) if file.info(key).dtype in FLOATS else file.raw(key)
    return torch.from_numpy(np.array(array))


def _sorted_out(tensors: Mapping[str, Tensor], kind: type[Method]) -> tuple[Parts, dict[str, Tensor]]:
    """The parameters of an adapter by module and part, and other tensors by name."""
    parts: Parts = {}
    kept = {}
    for key, value in tensors.items():
        end = next((end for end in kind.stored if key.endswith(f".{end}")), None)
        if end is None:
            kept[key] = value
        else:
            parts.setdefault(key.removesuffix(f".{end}"), {})[kind.stored[end]] = value
    if not parts:
        raise FormatError(f"The file holds no tensors of the type {kind.name}: it has {listed(tensors)}")
    whole = set(kind.stored.values())
    for module, held in parts.items():
        if missing := whole - set(held):
            raise FormatError(f"The adapter is not whole: {shown(module)} has no {listed(sorted(missing))}")
    return parts, kept


def _require_there(
    saved: _Saved, modules: Mapping[str, nn.Module], values: Mapping[str, Tensor], model: nn.Module
) -> None:
    """Refuse an adapter whose modules the model does not have, or whose kept modules have other shapes."""
    if missing := [module for module in saved.parts if module not in modules]:
        raise ShapeError(
            f"The adapter is of another model: it adapts {listed(missing)}, which this model does not have, in "
            f"{saved.where}; the model has {last_parts(adaptable(model))}"
        )
    if missing := [key for key in saved.kept if key not in values]:
        raise ShapeError(
            f"The adapter has {counted(len(missing), 'tensor')} of no module of this model: {listed(missing)}, in "
            f"{saved.where}; load it into the model that it was trained in"
        )
    for key, value in saved.kept.items():
        if value.shape != values[key].shape:
            raise ShapeError(
                f"{shown(key)} has the shape {tuple(value.shape)} in {saved.where} and {tuple(values[key].shape)} in "
                "the model; load it into a model with as many outputs"
            )


def _require_fit(method: Method, layer: nn.Module, module: str, parts: Mapping[str, Tensor]) -> None:
    """Refuse parameters of other shapes than those that the method gives the layer."""
    adapted_class(layer, module)  # an error where it cannot be adapted
    with located(f"module {shown(module)}"), torch.no_grad():
        expected = {part: value.shape for part, value in method.start(layer, module).items()}
    wrong = [part for part, shape in expected.items() if part not in parts or not _fits(parts[part], shape)]
    if wrong:
        found = parts[wrong[0]].shape if wrong[0] in parts else ()
        raise ShapeError(
            f"{wrong[0]} of {shown(module)} has the shape {tuple(found)} in the adapter, and this model needs "
            f"{tuple(expected[wrong[0]])}; load it into the model that it was trained in"
        )


def _fits(value: Tensor, shape: torch.Size) -> bool:
    """Whether a tensor has a shape, or the numbers of a vector, which a file may have as its layer broadcasts it."""
    return value.shape == shape or (len(shape) == 1 and value.numel() == shape.numel())


def _put(layer: nn.Module, name: str, saved: _Saved, module: str, start: dict[str, Tensor] | None) -> None:
    """Give a layer that `inject` has adapted the loaded parameters."""
    assert isinstance(layer, AdaptedLayer)
    method = saved.methods[module]
    layer.methods[name], layer.remembered[name] = method, method.remembered(module)
    for part, value in saved.parts[module].items():
        now = layer._parameters[part]
        assert now is not None
        # a rank of its own changes the shape of a factor
        shape = now.shape if now.dim() == 1 else value.shape
        layer._parameters[part] = nn.Parameter(value.to(now.device, now.dtype).reshape(shape))
    layer.loaded_starts[name] = start


def _starts(folder: Path, saved: _Saved) -> Parts:
    """What the adapter started from, {} where that is not with it."""
    if not (folder / START / CONFIG).is_file():
        return {}
    parts = _Saved.read(folder / START).parts
    same = {module: _shapes(held) for module, held in parts.items()} == {
        module: _shapes(held) for module, held in saved.parts.items()
    }
    return parts if same else {}


def _shapes(parts: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {part: value.shape for part, value in parts.items()}


def _class_names(folder: Path) -> dict[int, str]:
    """Names of the classes by their numbers, {} where there are none."""
    named = read_json(folder / LABELS).get("id2label") if (folder / LABELS).is_file() else None
    if not isinstance(named, dict) or not all(str(key).isdecimal() for key in named):
        return {}
    return {int(key): str(label) for key, label in named.items()}
