"""A model in memory as a `Source`: its state dict, with the scales and groups that are attributes of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from subspace.adapters.base.model import tensors_of
from subspace.adapters.choice import chosen_adapter
from subspace.adapters.format import Source
from subspace.adapters.live_peft import opened_peft

__all__ = ["opened_module"]


def opened_module(model: Any, adapter_name: str | None = None) -> Source:
    """A model of PEFT, of loralib or of ``subspace.training`` as a `Source`, with the scales that its layers apply.

    Raises
    ------
    FormatError : the model has several adapters and none was chosen, or none is called `adapter_name`

    References
    ----------
    loralib/layers.py: ``scaling``, ``enable_lora``.
    """
    tensors = tensors_of(model)
    source = opened_peft(model, tensors, adapter_name)
    if source is not None:
        return source
    adapted = {name: layer for name, layer in model.named_modules() if _holds_adapters(layer)}
    if adapted:
        return _trained_here(model, adapted, adapter_name)
    layers = {name: layer for name, layer in model.named_modules() if _is_loralib(layer)}
    return Source(
        tensors,
        adapter_name=adapter_name,
        scales={name: float(layer.scaling) for name, layer in layers.items()},
        groups={
            name: tuple(layer.enable_lora) for name, layer in layers.items() if hasattr(layer, "enable_lora")
        },
    )


def _trained_here(model: Any, layers: Mapping[str, Any], wanted: str | None) -> Source:
    """A model that ``subspace.training`` adapted: of several adapters the one asked for, else the active one."""
    from subspace import checkpoints

    names = dict.fromkeys(name for layer in layers.values() for name in layer.methods)
    active = next((layer.active for layer in layers.values() if layer.active), None)
    chosen = _chosen(names, wanted or active)
    methods = {name: layer.methods[chosen] for name, layer in layers.items() if chosen in layer.methods}
    state: dict[str, Any] = {}
    for key, value in model.state_dict().items():
        module, _, last = key.rpartition(".")
        part = last.partition("@")[0]
        if module not in layers or not any(
            part in method.parts for method in layers[module].methods.values()
        ):
            state[key] = value
        elif module in methods:
            own = methods[module].tensors(layers[module], chosen)
            state |= {f"{module}.{part}": tensor.detach() for part, tensor in own.items()}
    # groups that are no equal blocks are one pair with zeros, as in PEFT's files; by numbers they are loralib's
    joined = {name for name, method in methods.items() if _by_name(getattr(method, "groups", None))}
    for name in joined:
        for part, value in methods[name].peft_tensors(layers[name], chosen).items():
            state[f"{name}.{part.removesuffix('.weight')}"] = value
    scaled = {name: method for name, method in methods.items() if hasattr(method, "scale")}
    return Source(
        checkpoints.from_memory({key: value for key, value in state.items() if hasattr(value, "shape")}),
        scales={name: float(method.scale) for name, method in scaled.items()},
        groups={
            name: tuple((method.groups if name not in joined else None) or (True,))
            for name, method in scaled.items()
        },
    )


def _by_name(groups: Any) -> bool:
    return groups is not None and all(isinstance(group, str) for group in groups)


def _holds_adapters(layer: Any) -> bool:
    return isinstance(getattr(layer, "methods", None), dict) and hasattr(layer, "delta_weight")


def _chosen(names: Iterable[str], wanted: str | None) -> str:
    return str(chosen_adapter(names, wanted, "the model"))


def _is_loralib(layer: Any) -> bool:
    return hasattr(layer, "lora_A") and isinstance(getattr(layer, "scaling", None), int | float)
