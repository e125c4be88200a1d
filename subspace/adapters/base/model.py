"""A model in memory as tensors and a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile

__all__ = ["model_config", "tensors_of"]


def tensors_of(model: Any) -> TensorFile:
    """The tensors of a model's state dict, in which some libraries keep other objects too."""
    from subspace import checkpoints

    return checkpoints.from_memory({k: v for k, v in model.state_dict().items() if hasattr(v, "shape")})


def model_config(model: Any) -> Mapping[str, Any]:
    """The configuration of a transformers model in memory, empty for any other."""
    config = getattr(model, "config", None)
    fields = config.to_dict() if config is not None and hasattr(config, "to_dict") else config
    return fields if isinstance(fields, Mapping) else {}
