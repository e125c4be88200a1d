"""loralib's verbs under its names, for models adapted here: what is trained, and what is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.adapted_layer import PARTS, AdaptedLayer

__all__ = ["lora_state_dict", "mark_only_lora_as_trainable"]


def mark_only_lora_as_trainable(model: nn.Module, bias: str = "none") -> None:
    """Freeze every parameter but those of the active adapter, and as loralib the biases: "none", "all" or "lora_only".

    Raises
    ------
    ValueRangeError : `bias` is another word

    References
    ----------
    loralib/utils.py, ``mark_only_lora_as_trainable``.
    """
    biases = _biases(model, bias)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[2] in PARTS or name in biases)


def lora_state_dict(model: nn.Module, bias: str = "none") -> dict[str, Tensor]:
    """Tensors of the active adapter under loralib's names, ``<module>.lora_A`` and ``<module>.lora_B``.

    ``model.load_state_dict(..., strict=False)`` takes them back.

    References
    ----------
    loralib/utils.py, ``lora_state_dict``.
    """
    biases = _biases(model, bias)
    state: Mapping[str, Any] = model.state_dict()
    return {name: state[name] for name in state if name.rpartition(".")[2] in PARTS or name in biases}


def _biases(model: nn.Module, bias: str) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    if bias == "none":
        return set()
    if bias == "all":
        return {name for name in names if "bias" in name}
    if bias == "lora_only":
        layers = {name for name, layer in model.named_modules() if isinstance(layer, AdaptedLayer)}
        return {f"{layer}.bias" for layer in layers} & set(names)
    raise ValueRangeError(f"bias must be none, all or lora_only: got {shown(bias)}")
