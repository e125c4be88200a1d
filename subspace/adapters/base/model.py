"""A model in memory as tensors and a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.text import listed, shown

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile

__all__ = ["model_config", "require_unmerged", "tensors_of"]


def tensors_of(model: Any) -> TensorFile:
    """The tensors of a model's state dict, in which some libraries keep other objects too."""
    from subspace import checkpoints

    return checkpoints.from_memory({k: v for k, v in model.state_dict().items() if hasattr(v, "shape")})


def model_config(model: Any) -> Mapping[str, Any]:
    """The configuration of a transformers model in memory, empty for any other."""
    config = getattr(model, "config", None)
    fields = config.to_dict() if config is not None and hasattr(config, "to_dict") else config
    return fields if isinstance(fields, Mapping) else {}


def require_unmerged(model: Any) -> None:
    """Check that the weights of a PEFT model are those of its base.

    Raises
    ------
    FormatError : an adapter is merged into them
    """
    merged = dict.fromkeys(
        name for _, layer in model.named_modules() for name in getattr(layer, "merged_adapters", None) or ()
    )
    if merged:
        raise FormatError(
            f"The weights of the model are not those of its base, since adapters are merged into them: "
            f"{listed(map(shown, merged))}; call unmerge_adapter() first, or give the base model itself"
        )
