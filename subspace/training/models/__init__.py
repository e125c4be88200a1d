"""The model that a run adapts: the embedded one, or one that transformers knows.

The names, which need torch, are loaded on first use: where a model is can be asked without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subspace.training.models.load_model import load_base
    from subspace.training.models.loaded_base import Base
    from subspace.training.models.targets import default_targets

__all__ = ["Base", "default_targets", "load_base"]

_PLACES = {"Base": "loaded_base", "default_targets": "targets", "load_base": "load_model"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
