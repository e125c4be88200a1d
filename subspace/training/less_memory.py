"""Gradient checkpointing: what a block computed is computed once more in the backward pass instead of being kept."""

from __future__ import annotations

from typing import Any

from torch import nn

from subspace.errors import ValueRangeError
from subspace.text import shown

__all__ = ["checkpoint_gradients"]


def checkpoint_gradients(model: nn.Module, name: str) -> None:
    """Turn gradient checkpointing on, by the model's own method, without a need of gradients at its inputs.

    The second pass has the random numbers of the first, so nothing changes but, in some models, the order of a sum of
    gradients, and with it the rounding. Frozen embeddings need nothing else.

    Parameters
    ----------
    model : of transformers, or the embedded base
    name : of the model, for the error

    Raises
    ------
    ValueRangeError : the model has no such method, or no blocks that could be computed again
    """
    # newer versions of transformers have another name for it
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable: Any = next((getattr(model, own) for own in names if hasattr(model, own)), None)
    if enable is not None and getattr(model, "supports_gradient_checkpointing", True):
        # the older way, with re-entrant calls, gives no gradients behind frozen embeddings
        enable({"use_reentrant": False})
        for module in model.modules():
            config: Any = getattr(module, "config", None)
            if hasattr(config, "use_cache"):
                config.use_cache = False  # keys and values that a second pass would append once more
        return
    raise ValueRangeError(
        f"The model {shown(name, longest=1000)} ({type(model).__name__}) has no gradient checkpointing; turn "
        "`gradient_checkpointing` off, and lower `batch` or `length` if memory is short"
    )
