"""What AdamW is given to train: parameters that share a weight decay and a multiple of the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from subspace.training.injection import adapted

__all__ = ["parameter_groups"]


def parameter_groups(
    model: nn.Module, trained: Mapping[str, nn.Parameter], *, weight_decay: float
) -> list[dict[str, Any]]:
    """Return groups of parameters with their ``weight_decay`` and their ``rate``, a multiple of the learning rate.

    Parameters
    ----------
    model : whose adapters' methods say the rates; those of other parameters are 1
    trained : the parameters by name
    weight_decay : of matrices; vectors have none
    """
    rates = _rates(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in trained.values():
        key = (weight_decay if parameter.dim() > 1 else 0.0, rates.get(id(parameter), 1.0))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate": rate}
        for (decay, rate), parameters in groups.items()
    ]


def _rates(model: nn.Module) -> dict[int, float]:
    """Rates of the parameters of the active adapters, by ``id``."""
    return {
        id(parameter): layer.methods[layer.active].rate(part)
        for _, layer in adapted(model)
        if layer.active
        for part, parameter in layer.factors(layer.active).items()
    }
