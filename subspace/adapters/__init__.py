"""Adapters: module name -> update, whatever the file; and the base weights they belong to."""

from subspace.adapters.adapter import Adapter, load_adapter, with_scale
from subspace.adapters.base import BaseWeight, BaseWeights, load_base
from subspace.adapters.naming import match_modules
from subspace.adapters.update import DenseUpdate, LowRankUpdate, Scale, Update

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
