"""PEFT models in memory, alone or inside other modules, as a `Source`.

A model has its adapters in `peft_config`, as `PeftModel` has, and models of transformers and diffusers after
``add_adapter`` or ``load_lora_adapter``. A module that holds such models as attributes has none itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from subspace.adapters.choice import chosen_adapter, undecided
from subspace.adapters.format import Ignored, Parameter, Role, Source
from subspace.adapters.live_keys import as_saved
from subspace.adapters.naming.wrappers import WRAPPERS
from subspace.adapters.plain_values import plain
from subspace.checkpoints.peft_files import PREFIX
from subspace.checkpoints.tensor_file import TensorFile
from subspace.checkpoints.view import TensorView
from subspace.text import listed, shown

__all__ = ["opened_peft"]

_WHERE = "the model's peft_config"


def opened_peft(model: Any, tensors: TensorFile, wanted: str | None) -> Source | None:
    """The adapter of a PEFT model, or those of the PEFT models inside a module; None where there are none.

    Parameters
    ----------
    tensors : of the state dict of the model
    wanted : name of the adapter, None for the only one

    Raises
    ------
    FormatError : there are several adapters and none was chosen, or none is called `wanted`

    References
    ----------
    peft 0.21: ``PeftModel.peft_config``, ``LoraLayer.scaling``, ``ParamWrapper.parameter_name``.
    """
    inner = _models(model)
    if list(inner) == [""]:
        return _source(model, tensors, _configs(model), _chosen(_configs(model), wanted))
    if len(inner) == 1:
        ((outer, only),) = inner.items()
        own = {key.removeprefix(f"{outer}."): key for key in tensors.layout if key.startswith(f"{outer}.")}
        source = _source(only, TensorView(tensors, own), _configs(only), _chosen(_configs(only), wanted))
        note = f"The adapter is in {shown(outer)} of the model, which is left out of the names of its modules"
        return replace(source, notes=(note, *source.notes), ignored=source.ignored + _outside(tensors, inner))
    return _several(inner, tensors, wanted) if inner else _layers_alone(model, tensors, wanted)


def _several(inner: Mapping[str, Any], tensors: TensorFile, wanted: str | None) -> Source:
    """Several PEFT models, each with adapters and a configuration of its own; the names of modules begin with where."""
    names = list(dict.fromkeys(name for model in inner.values() for name in _configs(model)))
    if wanted is not None and wanted not in names:
        raise undecided(names, "the model", wanted=wanted)
    called = {outer: ".".join(word for word in outer.split(".") if word not in WRAPPERS) for outer in inner}
    if len(set(called.values())) < len(called):
        called = {outer: outer for outer in inner}
    parts = []
    for (stored, model), outer in zip(inner.items(), called.values(), strict=True):
        configs = _configs(model)
        if wanted is None or wanted in configs:
            name = _chosen(configs, wanted, f"{shown(stored)} of the model")
            start = f"{stored}."
            own = {
                _inside(f"{outer}.{key.removeprefix(start)}", outer): key
                for key in tensors.layout
                if key.startswith(start)
            }
            parts.append(_under(_source(model, TensorView(tensors, own), configs, name), outer))
    held = listed(map(shown, called.values()), most=8)
    note = f"The adapters are in {held} of the model, with which the names of their modules begin"
    view = TensorView.joined(tensors, [part.tensors for part in parts])
    return Source(view, parts=tuple(parts), notes=(note,), ignored=_outside(tensors, inner))


def _inside(key: str, outer: str) -> str:
    """A key as if the whole model were PEFT's; what all layers of an inner model share has no name of a module."""
    inner = key.removeprefix(f"{outer}.")
    if inner.startswith(PREFIX) or not inner.startswith("base_model."):
        return f"{PREFIX}{outer}.{inner.removeprefix(PREFIX)}"
    return inner


def _outside(tensors: TensorFile, inner: Mapping[str, Any]) -> tuple[Ignored, ...]:
    """The tensors of a module that belong to none of the PEFT models inside."""
    starts = tuple(f"{outer}." for outer in inner)
    return tuple(
        Ignored(key, "a weight of the model", Role.BASE)
        for key in tensors.layout
        if not key.startswith(starts)
    )


def _under(source: Source, outer: str) -> Source:
    """The source with names that begin with those of attributes."""
    return replace(
        source,
        outer=f"{outer}.",
        config_path=f"the peft_config of {shown(outer)}",
        scales={f"{outer}.{name}": scale for name, scale in source.scales.items()},
        parameters={f"{outer}.{name}": parameter for name, parameter in source.parameters.items()},
    )


def _models(model: Any) -> dict[str, Any]:
    """The outermost modules with adapters of PEFT, by their names."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") if outer else True for outer in found)
        if not inside and _configs(module) and not _is_wrapper(module):
            found[name] = module
    return found


def _is_wrapper(module: Any) -> bool:
    """Whether a module has the attributes of the one that it wraps, as torch.compile's has."""
    return any(name in WRAPPERS for name, _ in module.named_children())


def _configs(model: Any) -> Mapping[str, Any]:
    configs = getattr(model, "peft_config", None)
    return configs if isinstance(configs, Mapping) else {}


def _chosen(names: Iterable[str], wanted: str | None, where: str = "the model") -> str:
    return str(chosen_adapter(names, wanted, where))


def _source(model: Any, tensors: TensorFile, names: Collection[str], name: str) -> Source:
    """The adapter of one model, of those that it has; modules are called as in that model."""
    layers = {
        module.removeprefix(PREFIX): layer for module, layer in model.named_modules() if _has(layer, name)
    }
    merged = any(name in getattr(layer, "merged_adapters", ()) for layer in layers.values())
    note = (
        f"The adapter {shown(name)} is merged into the weights of the model, which are not those of the base until "
        "unmerge_adapter() is called"
    )
    source = Source(
        tensors,
        _config(_configs(model)[name]) if name in _configs(model) else None,
        config_path=_WHERE,
        adapter_name=name,
        scales={module: float(layer.scaling[name]) for module, layer in layers.items()},
        parameters={module: _parameter(layer) for module, layer in layers.items() if _wraps(layer)},
        notes=(note,) if merged else (),
    )
    return as_saved(source, model, names)


def _has(layer: Any, name: str) -> bool:
    """Whether a layer holds an adapter of that name, whose scale `set_scale` and the like may have changed."""
    return isinstance(getattr(layer, "scaling", None), dict) and name in layer.scaling


def _wraps(layer: Any) -> bool:
    return isinstance(getattr(layer, "parameter_name", None), str) and hasattr(layer, "num_experts")


def _parameter(layer: Any) -> Parameter:
    experts = int(layer.num_experts)
    swapped = bool(getattr(layer, "_did_swap_in_out_features", False))
    return Parameter(layer.parameter_name, experts, None if experts == 1 else not swapped)


def _config(config: Any) -> dict[str, Any]:
    fields = config if isinstance(config, Mapping) else config.to_dict()
    return {name: value for name, value in plain(fields).items() if name != "runtime_config"}


def _layers_alone(model: Any, tensors: TensorFile, wanted: str | None) -> Source | None:
    """LoRA layers of PEFT in a model that has no configuration."""
    names = dict.fromkeys(name for _, layer in model.named_modules() for name in _adapters(layer))
    if not names:
        return None
    source = _source(model, tensors, names, _chosen(names, wanted))
    return replace(source, config_path=None)


def _adapters(layer: Any) -> Iterable[str]:
    scaling = getattr(layer, "scaling", None)
    return scaling if isinstance(scaling, dict) and hasattr(layer, "lora_A") else ()
