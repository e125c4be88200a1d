"""A model in memory: its state dict, with the scale and the groups that its LoRA layers carry as attributes."""

from __future__ import annotations

from typing import Any

from subspace.adapters.format import Source

__all__ = ["opened_module"]


def opened_module(model: Any) -> Source:
    """An ``nn.Module`` as a `Source`: PEFT models bring their configuration, loralib layers their scale.

    Sources: peft ``PeftModel.peft_config``; loralib/layers.py, attributes ``scaling`` and ``enable_lora``.
    """
    from subspace import checkpoints

    tensors = checkpoints.from_memory(dict(model.state_dict()))
    config = _peft_config(model)
    if config is not None:
        return Source(tensors, config, config_path="the model's peft_config")
    layers = {name: layer for name, layer in model.named_modules() if _is_loralib(layer)}
    groups = {tuple(layer.enable_lora) for layer in layers.values() if hasattr(layer, "enable_lora")}
    return Source(
        tensors,
        scales={name: float(layer.scaling) for name, layer in layers.items()},
        enabled=groups.pop() if len(groups) == 1 else None,
    )


def _is_loralib(layer: Any) -> bool:
    return hasattr(layer, "lora_A") and isinstance(getattr(layer, "scaling", None), int | float)


def _peft_config(model: Any) -> dict[str, Any] | None:
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, dict) or len(configs) != 1:
        return None
    config: dict[str, Any] = next(iter(configs.values())).to_dict()
    config["peft_type"] = str(getattr(config.get("peft_type"), "value", config.get("peft_type")))
    return config
