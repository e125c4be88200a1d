"""The model inside what is wrapped around it, whose modules have the names that it gives them."""

from __future__ import annotations

from torch import nn

from subspace.checkpoints.wrapper_words import WRAPPER_WORDS

__all__ = ["unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile, DataParallel, DistributedDataParallel, DeepSpeed and their like.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(model)) is model, unwrapped(model) is model
    (True, True)
    """
    while (inside := _inside(model)) is not None:
        model = inside
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    words = ("module",) if parallel or type(model).__name__ == "DeepSpeedEngine" else WRAPPER_WORDS
    held = (model._modules.get(word) for word in words)
    return next((each for each in held if each is not None), None)
