"""Hugging Face PEFT: a directory of ``adapter_model.safetensors`` and ``adapter_config.json``.

The configuration of an adapter that was read from PEFT's files is kept, except for ranks and alphas.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer, alpha_of
from subspace.adapters.place import place
from subspace.adapters.writer import Layout, Writer
from subspace.adapters.writers import _attention as attention
from subspace.adapters.writers._rank_patterns import patterns_for
from subspace.adapters.writers._spelling import path_in_one_model
from subspace.adapters.writers._targets import CHOOSING, choose, targets_of
from subspace.checkpoints.peft_files import PREFIX, WEIGHTS, factor_keys, lora_config
from subspace.checkpoints.tensor_bytes import StoredTensor
from subspace.errors import FormatError
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["WRITER"]

# fields about the writer of the file that was read, and about groups that are joined here
_OUTDATED = ("peft_version", "enable_lora", "runtime_config")


def _lay_out(layers: Sequence[Layer], adapter: Adapter) -> Layout:
    tensors: dict[str, StoredTensor] = {}
    names = path_in_one_model((layer.module for layer in layers), adapter, WRITER.name)
    named = [replace(layer, module=names[layer.module]) for layer in layers]
    inner = attention.out_projections(named)
    attention.require_alike(named, inner)
    for layer in named:
        _require_name(layer.module, adapter)
        keys = factor_keys(attention.stored_name(layer.module, inner), embedding=layer.kind == "embedding")
        tensors |= zip(keys, layer.tensors(), strict=True)
    outer = [layer for layer in named if layer.module not in inner]
    return Layout(tensors, names, config=_config(outer, adapter), notes=_notes(names, adapter))


def _require_name(module: str, adapter: Adapter) -> None:
    if not module or module.startswith(PREFIX):
        what = f"the module name {shown(repr(module))}" if module else "a module without a name"
        raise FormatError(f"PEFT cannot hold {what}, in {place(adapter.path)}; give it a name with `module`")


def _config(layers: Sequence[Layer], adapter: Adapter) -> dict[str, Any]:
    """The configuration, whose patterns give every module its rank and its alpha.

    References
    ----------
    peft/tuners/lora/model.py 0.21, ``_create_and_replace``; peft/tuners/lora/layer.py, ``update_layer``.
    """
    kept = _kept(adapter, [layer.module for layer in layers])
    rslora = bool(kept.get("use_rslora"))
    ranks = {layer.module: layer.r for layer in layers}
    alphas = {layer.module: _whole(alpha_of(layer.known_scale, layer.r, rslora=rslora)) for layer in layers}
    r, rank_pattern = patterns_for(ranks)
    alpha, alpha_pattern = patterns_for(alphas)
    decided = {"r": r, "lora_alpha": alpha, "rank_pattern": rank_pattern, "alpha_pattern": alpha_pattern}
    turned = any(update.fan_in_fan_out for update in adapter.values())
    defaults = {"fan_in_fan_out": turned, "target_modules": targets_of(ranks), "use_dora": False}
    return lora_config({**defaults, **kept, **decided})


def _kept(adapter: Adapter, modules: Collection[str]) -> dict[str, Any]:
    """The fields of PEFT's own configuration that stay; those that choose layers go where they choose others."""
    if adapter.format != "peft":
        return {}
    kept = {key: _plain(value) for key, value in adapter.config.items() if key not in _OUTDATED}
    kept = {key: value for key, value in kept.items() if value is not None}
    if adapter.stored_names or not choose(kept, modules):
        kept = {key: value for key, value in kept.items() if key not in CHOOSING}
    dora = any(Flag.DORA in update.flags for update in adapter.values())
    return {**kept, "use_dora": dora} if "use_dora" in kept else kept


def _plain(value: Any) -> Any:
    """A value as JSON has it; None for an object that only a model in memory can hold."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _whole(alpha: float) -> float:
    return int(alpha) if alpha.is_integer() else alpha


def _notes(names: Mapping[str, str], adapter: Adapter) -> tuple[str, ...]:
    if adapter.format == WRITER.name:
        return ()
    notes = [
        "The configuration does not say base_model_name_or_path and task_type, which are unknown; PEFT loads the "
        "adapter onto a model that you give"
    ]
    if any(old != new and new.startswith("text_model.") for old, new in names.items()):
        notes.append(
            "The layers of CLIPTextModel have names that begin with text_model in transformers 4, as they are written "
            "here, and without it in transformers 5; give those with `rename`"
        )
    return tuple(notes)


def _fitted(layers: Sequence[Layer]) -> list[Layer]:
    return [layer.positive() for layer in layers]


WRITER = Writer(
    name="peft",
    about="Hugging Face PEFT, scale alpha / r with lora_alpha and alpha_pattern (peft/tuners/lora/layer.py)",
    holds=lambda layer: layer.kind != "conv" or layer.kernel is not None,
    lay_out=_lay_out,
    fitted=_fitted,
    weights=WEIGHTS,
)
