"""Hugging Face PEFT: a directory of ``adapter_model.safetensors`` and ``adapter_config.json``.

The configuration of an adapter that was PEFT's stays, but for what the new factors decide: ranks and alphas.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer, alpha_of
from subspace.adapters.writer import Layout, Writer
from subspace.adapters.writers._rank_patterns import patterns_for
from subspace.errors import FormatError
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["WRITER"]

_PREFIX = "base_model.model."
# what a saved configuration says of who wrote the file and how its groups lay
_OUTDATED = ("peft_version", "enable_lora", "runtime_config")


def _lay_out(layers: Sequence[Layer], adapter: Adapter) -> Layout:
    tensors = {}
    for layer in layers:
        _require_name(layer.module, adapter)
        middle, end = ("lora_embedding_", "") if layer.kind == "embedding" else ("lora_", ".weight")
        for part, tensor in zip("AB", layer.tensors(), strict=True):
            tensors[f"{_PREFIX}{layer.module}.{middle}{part}{end}"] = tensor
    names = {layer.module: layer.module for layer in layers}
    return Layout(tensors, names, config=_config(layers, adapter), notes=_notes(layers, adapter))


def _require_name(module: str, adapter: Adapter) -> None:
    if not module or module.startswith(_PREFIX):
        raise FormatError(
            f"a module must have a name to be written for PEFT: got {shown(repr(module))}, in "
            f"{shown(adapter.path, longest=1000)}; give one with --module"
        )


def _config(layers: Sequence[Layer], adapter: Adapter) -> dict[str, Any]:
    """Configuration whose patterns resolve to the rank and the alpha of every module.

    References
    ----------
    peft/tuners/lora/model.py 0.21, ``_create_and_replace``; peft/tuners/lora/layer.py, ``update_layer``.
    """
    kept = _kept(adapter)
    rslora = bool(kept.get("use_rslora"))
    ranks = {layer.module: layer.r for layer in layers}
    alphas = {layer.module: _whole(alpha_of(layer.known_scale, layer.r, rslora=rslora)) for layer in layers}
    r, rank_pattern = patterns_for(ranks)
    alpha, alpha_pattern = patterns_for(alphas)
    return {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": _fan_in_fan_out(adapter),
        "inference_mode": True,
        "init_lora_weights": True,
        "target_modules": list(ranks),
        "task_type": None,
        "use_dora": False,
        **kept,
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
    }


def _kept(adapter: Adapter) -> dict[str, Any]:
    """What an adapter that was PEFT's says of its model; groups that are joined now have targets of their own."""
    if adapter.format != "peft":
        return {}
    joined = any(Flag.FUSED in update.flags for update in adapter.values())
    outdated = (*_OUTDATED, "target_modules") if joined else _OUTDATED
    kept = {key: _plain(value) for key, value in adapter.config.items() if key not in outdated}
    kept = {key: value for key, value in kept.items() if value is not None}
    dora = any(Flag.DORA in update.flags for update in adapter.values())
    return {**kept, "use_dora": dora} if "use_dora" in kept else kept


def _plain(value: Any) -> Any:
    """A value as JSON has it; None for what a model in memory holds that no file would."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _fan_in_fan_out(adapter: Adapter) -> bool:
    return any(update.fan_in_fan_out for update in adapter.values())


def _whole(alpha: float) -> float:
    return int(alpha) if alpha.is_integer() else alpha


def _notes(layers: Sequence[Layer], adapter: Adapter) -> tuple[str, ...]:
    told = []
    flat = [layer.module for layer in layers if "." not in layer.module and layer.module.startswith("lora_")]
    if flat:
        told.append(
            f"{len(flat)} names are flattened ones, which PEFT finds in no model: {shown(flat[0])}; rename the keys"
        )
    if adapter.format != "peft":
        told.append("base_model_name_or_path and task_type are not known: PEFT asks for the model")
    return tuple(told)


def _fitted(layers: Sequence[Layer]) -> list[Layer]:
    return [layer.positive() for layer in layers]


WRITER = Writer(
    name="peft",
    about="Hugging Face PEFT: lora_alpha and alpha_pattern, scale alpha / r (peft/tuners/lora/layer.py)",
    holds=lambda layer: layer.kind != "conv" or layer.kernel is not None,
    lay_out=_lay_out,
    fitted=_fitted,
    weights="adapter_model.safetensors",
)
