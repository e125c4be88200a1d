"""A model in memory: its state dict, with the scale and the groups that its LoRA layers carry as attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from subspace.adapters.base.model import tensors_of
from subspace.adapters.choice import chosen_adapter
from subspace.adapters.format import Source

__all__ = ["opened_module"]

_PREFIX = "base_model.model."
_PART = re.compile(r"(lora_A|lora_B|ia3_l)(?:@(\w+))?")


def opened_module(model: Any, adapter_name: str | None = None) -> Source:
    """An ``nn.Module`` as a `Source`: PEFT models bring their configuration, loralib layers scale and groups.

    Sources: peft ``PeftModel.peft_config``, ``LoraLayer.scaling``; loralib/layers.py, attributes ``scaling`` and
    ``enable_lora``.

    Raises
    ------
    FormatError : the model has several adapters and `adapter_name` is none of them
    """
    tensors = tensors_of(model)
    configs = getattr(model, "peft_config", None)
    if isinstance(configs, dict) and configs:
        name = _chosen(configs, adapter_name)
        return Source(
            tensors,
            _config(configs[name]),
            config_path="the model's peft_config",
            adapter_name=name,
            scales=_peft_scales(model, name),
        )
    held = {name: layer for name, layer in model.named_modules() if _holds_adapters(layer)}
    if held:
        return _held(model, held, adapter_name)
    layers = {name: layer for name, layer in model.named_modules() if _is_loralib(layer)}
    return Source(
        tensors,
        adapter_name=adapter_name,
        scales={name: float(layer.scaling) for name, layer in layers.items()},
        groups={
            name: tuple(layer.enable_lora) for name, layer in layers.items() if hasattr(layer, "enable_lora")
        },
    )


def _held(model: Any, layers: Mapping[str, Any], wanted: str | None) -> Source:
    """A model adapted by ``subspace.training``: of several adapters the one that is named, else the active one."""
    from subspace import checkpoints

    names = dict.fromkeys(name for layer in layers.values() for name in layer.methods)
    active = next((layer.active for layer in layers.values() if layer.active), None)
    chosen = _chosen(names, wanted or active)
    state: dict[str, Any] = {}
    for key, value in model.state_dict().items():
        module, _, last = key.rpartition(".")
        part = _PART.fullmatch(last) if module in layers else None
        if part is None:
            state[key] = value
        elif (part[2] or layers[module].active) == chosen:
            state[f"{module}.{part[1]}"] = value
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
    told: dict[str, Any] = dict(config if isinstance(config, dict) else config.to_dict())
    told["peft_type"] = str(getattr(told.get("peft_type"), "value", told.get("peft_type")))
    if isinstance(told.get("target_modules"), set):
        told["target_modules"] = sorted(told["target_modules"])
    return told


def _peft_scales(model: Any, adapter: str) -> dict[str, float]:
    """Scale that each layer applies now: `set_scale` and the like may have changed the configuration's."""
    return {
        name.removeprefix(_PREFIX): float(layer.scaling[adapter])
        for name, layer in model.named_modules()
        if isinstance(getattr(layer, "scaling", None), dict) and adapter in layer.scaling
    }


def _is_loralib(layer: Any) -> bool:
    return hasattr(layer, "lora_A") and isinstance(getattr(layer, "scaling", None), int | float)
