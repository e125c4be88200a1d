"""A model in memory as a `Source`: its state dict, with the scales and groups that are attributes of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from subspace.adapters.base.model import tensors_of
from subspace.adapters.choice import chosen_adapter
from subspace.adapters.format import Source
from subspace.adapters.naming.wrappers import WRAPPERS
from subspace.checkpoints.peft_files import PREFIX

__all__ = ["opened_module"]

_DEEPEST = 16  # wrappers around one another


def opened_module(model: Any, adapter_name: str | None = None) -> Source:
    """A model of PEFT, of loralib or of ``subspace.training`` as a `Source`, with the scales that its layers apply.

    Raises
    ------
    FormatError : the model has several adapters and none was chosen, or none is called `adapter_name`

    References
    ----------
    peft: ``PeftModel.peft_config``, ``LoraLayer.scaling``; loralib/layers.py: ``scaling``, ``enable_lora``.
    """
    tensors = tensors_of(model)
    configs = getattr(_inside(model), "peft_config", None)
    if isinstance(configs, dict) and configs:
        name = _chosen(configs, adapter_name)
        return Source(
            tensors,
            _config(configs[name]),
            config_path="the model's peft_config",
            adapter_name=name,
            scales=_peft_scales(model, name),
        )
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


def _inside(model: Any) -> Any:
    """The PEFT model inside wrappers such as DistributedDataParallel, else the model itself."""
    inner = model
    for _ in range(_DEEPEST):
        if inner is None or isinstance(getattr(inner, "peft_config", None), dict):
            return model if inner is None else inner
        inner = next((child for name, child in inner.named_children() if name in WRAPPERS), None)
    return model


def _trained_here(model: Any, layers: Mapping[str, Any], wanted: str | None) -> Source:
    """A model that ``subspace.training`` adapted: of several adapters the one asked for, else the active one."""
    from subspace import checkpoints

    names = dict.fromkeys(name for layer in layers.values() for name in layer.methods)
    active = next((layer.active for layer in layers.values() if layer.active), None)
    chosen = _chosen(names, wanted or active)
    state: dict[str, Any] = {}
    for key, value in model.state_dict().items():
        module, _, last = key.rpartition(".")
        part, _, adapter = last.partition("@")
        if module not in layers or not any(
            part in method.parts for method in layers[module].methods.values()
        ):
            state[key] = value
        elif (adapter or layers[module].active) == chosen:
            state[f"{module}.{part}"] = value
    methods = {name: layer.methods[chosen] for name, layer in layers.items() if chosen in layer.methods}
    scaled = {name: method for name, method in methods.items() if hasattr(method, "scale")}
    return Source(
        checkpoints.from_memory({key: value for key, value in state.items() if hasattr(value, "shape")}),
        scales={name: float(method.scale) for name, method in scaled.items()},
        groups={name: tuple(method.groups or (True,)) for name, method in scaled.items()},
    )


def _holds_adapters(layer: Any) -> bool:
    return isinstance(getattr(layer, "methods", None), dict) and hasattr(layer, "delta_weight")


def _chosen(names: Iterable[str], wanted: str | None) -> str:
    return str(chosen_adapter(names, wanted, "the model"))


def _config(config: Any) -> dict[str, Any]:
    fields: dict[str, Any] = dict(config if isinstance(config, dict) else config.to_dict())
    fields["peft_type"] = str(getattr(fields.get("peft_type"), "value", fields.get("peft_type")))
    if isinstance(fields.get("target_modules"), set):
        fields["target_modules"] = sorted(fields["target_modules"])
    return fields


def _peft_scales(model: Any, adapter: str) -> dict[str, float]:
    """The scale that each layer applies now, which `set_scale` and the like may have changed."""
    return {
        name.removeprefix(PREFIX): float(layer.scaling[adapter])
        for name, layer in model.named_modules()
        if isinstance(getattr(layer, "scaling", None), dict) and adapter in layer.scaling
    }


def _is_loralib(layer: Any) -> bool:
    return hasattr(layer, "lora_A") and isinstance(getattr(layer, "scaling", None), int | float)
