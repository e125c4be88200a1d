"""The model that a run adapts: the embedded one, or one that transformers knows."""

from __future__ import annotations

from subspace.training.models.load_model import load_base
from subspace.training.models.loaded_base import Base
from subspace.training.models.targets import default_targets

__all__ = ["Base", "default_targets", "load_base"]


def __dir__() -> list[str]:
    return __all__
