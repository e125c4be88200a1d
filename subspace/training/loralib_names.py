"""loralib's functions under their names, for models adapted here: what is trained, and what is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.adapted_layer import AdaptedLayer
from subspace.training.injection import adapted

__all__ = ["lora_state_dict", "mark_only_lora_as_trainable"]


def mark_only_lora_as_trainable(model: nn.Module, bias: str = "none") -> None:
    """Freeze every parameter but those of the active adapter, and the biases as loralib does.

    Parameters
    ----------
    model : adapted by `inject`
    bias : which biases are trained too: "none", "all" or "lora_only" (of the adapted layers)

    Raises
    ------
    ValueRangeError : `bias` is another word

    References
    ----------
    loralib/utils.py, ``mark_only_lora_as_trainable``.
    """
    trained = _factors(model) | _biases(model, bias)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def lora_state_dict(model: nn.Module, bias: str = "none") -> dict[str, Tensor]:
    """Return the tensors of the active adapter under loralib's names, ``<module>.lora_A`` and ``<module>.lora_B``.

    ``model.load_state_dict(..., strict=False)`` takes them back. A convolution's have the shapes of this package, which
    are PEFT's; a run's file in loralib's format has loralib's own.

    Parameters
    ----------
    model : adapted by `inject`
    bias : which biases are in it too: "none", "all" or "lora_only" (of the adapted layers)

    Raises
    ------
    ValueRangeError : `bias` is another word

    References
    ----------
    loralib/utils.py, ``lora_state_dict``.
    """
    wanted = _factors(model) | _biases(model, bias)
    state: Mapping[str, Any] = model.state_dict()
    return {name: state[name] for name in state if name in wanted}


def _factors(model: nn.Module) -> set[str]:
    """Names of the parameters of the active adapter."""
    layers = [(f"{name}." if name else "", layer) for name, layer in adapted(model) if layer.active]
    return {f"{prefix}{part}" for prefix, layer in layers for part in layer.factors(layer.active or "")}


def _biases(model: nn.Module, bias: str) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    if bias == "none":
        return set()
    if bias == "all":
        return {name for name in names if "bias" in name}
    if bias == "lora_only":
        layers = {name for name, layer in model.named_modules() if isinstance(layer, AdaptedLayer)}
        return {f"{layer}.bias" for layer in layers} & set(names)
    raise ValueRangeError(f"Unknown choice of biases: '{shown(bias)}'; give `bias` as none, all or lora_only")
