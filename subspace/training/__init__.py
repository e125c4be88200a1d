"""Trains adapters and hands them on as files, in the layouts that others read.

The names that need torch are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from subspace.training.job import Job
from subspace.training.linear import Lesson, trained
from subspace.training.methods.dora import DoRA
from subspace.training.methods.full import Full
from subspace.training.methods.ia3 import IA3
from subspace.training.methods.lora import LoRA
from subspace.training.module_patterns import targets_in
from subspace.training.recipe import Recipe
from subspace.training.save_adapter import save_base, save_peft

if TYPE_CHECKING:
    from subspace.training.injection import adapted, inject, merge, remove, unmerge, use
    from subspace.training.layer_states import LayerTable, layer_table
    from subspace.training.loading import load
    from subspace.training.loralib_names import lora_state_dict, mark_only_lora_as_trainable
    from subspace.training.own_models import account, train
    from subspace.training.run import Run
    from subspace.training.saving import save
    from subspace.training.without_training import dry_run

__all__ = [
    "IA3",
    "DoRA",
    "Full",
    "Job",
    "LayerTable",
    "Lesson",
    "LoRA",
    "Recipe",
    "Run",
    "account",
    "adapted",
    "dry_run",
    "inject",
    "layer_table",
    "load",
    "lora_state_dict",
    "mark_only_lora_as_trainable",
    "merge",
    "remove",
    "save",
    "save_base",
    "save_peft",
    "targets_in",
    "train",
    "trained",
    "unmerge",
    "use",
]

_LOADED_ON_USE = {
    **dict.fromkeys(
        ("adapted", "inject", "merge", "remove", "unmerge", "use"), "subspace.training.injection"
    ),
    **dict.fromkeys(("LayerTable", "layer_table"), "subspace.training.layer_states"),
    **dict.fromkeys(("account", "train"), "subspace.training.own_models"),
    "Run": "subspace.training.run",
    "dry_run": "subspace.training.without_training",
    "load": "subspace.training.loading",
    "save": "subspace.training.saving",
    **dict.fromkeys(("lora_state_dict", "mark_only_lora_as_trainable"), "subspace.training.loralib_names"),
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_USE:
        raise AttributeError(f"module 'subspace.training' has no attribute {name!r}")
    return getattr(import_module(_LOADED_ON_USE[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
