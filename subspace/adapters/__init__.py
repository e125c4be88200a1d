"""Adapters of any format as module name -> update, and the base weights they belong to.

Base weights are imported on first use, since most questions need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.adapters.adapter import Adapter, with_scale
from subspace.adapters.load import load_adapter
from subspace.adapters.naming.matching import match_modules
from subspace.adapters.update import DenseUpdate, LowRankUpdate, Scale, Update

if TYPE_CHECKING:
    from subspace.adapters.base.weights import BaseWeight, BaseWeights, load_base

__all__ = [
    "Adapter",
    "BaseWeight",
    "BaseWeights",
    "DenseUpdate",
    "LowRankUpdate",
    "Scale",
    "Update",
    "load_adapter",
    "load_base",
    "match_modules",
    "with_scale",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from subspace.adapters.base import weights

    return getattr(weights, name)


def __dir__() -> list[str]:
    return list(__all__)
