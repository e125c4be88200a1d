"""The tensors of a PEFT model in memory as PEFT would save one adapter: without its name, and without the model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from subspace.adapters.format import Ignored, Role, Source
from subspace.checkpoints.view import TensorView
from subspace.text import shown

__all__ = ["as_saved"]

# what PEFT trains besides the parameters of its layers, by the word before the name of the adapter
_SAVED = {"modules_to_save", "trainable_tokens_delta", "trainable_tokens_original"}
_COPY = "original_module"
_BIASES: dict[Any, tuple[str, ...]] = {"all": ("bias",), "lora_only": (".base_layer.bias",)}


def as_saved(source: Source, model: Any, names: Collection[str]) -> Source:
    """The source with the tensors of its adapter alone, under the keys of a file; all others are ignored.

    Parameters
    ----------
    names : of all adapters of the model, among which that of the source

    References
    ----------
    peft 0.21, utils/save_and_load.py: ``get_peft_model_state_dict``; tuners/tuners_utils.py:
    ``BaseTunerLayer.adapter_layer_names``.
    """
    parts = _parts(model)
    biases = _BIASES.get((source.config or {}).get("bias"), ())
    keys: dict[str, str] = {}
    ignored: list[Ignored] = []
    for key in source.tensors.layout:
        words = key.split(".")
        place = _place(words, parts, names)
        if place is not None and words[place + 1] != source.adapter_name:
            ignored.append(Ignored(key, f"part of the adapter {shown(words[place + 1])}", Role.OTHER_ADAPTER))
        elif place is not None:
            keys.setdefault(_saved(words, place, parts), key)
        elif _COPY in words or not parts.isdisjoint(words) or key.endswith(biases):
            keys.setdefault(key, key)
        else:
            ignored.append(Ignored(key, "a weight of the model", Role.BASE))
    if len(keys) + len(ignored) < len(source.tensors.layout):  # two keys would be one
        return source
    return replace(
        source, tensors=TensorView(source.tensors, keys), adapter_name=None, ignored=tuple(ignored)
    )


def _parts(model: Any) -> set[str]:
    """The names of what PEFT's layers hold by the name of an adapter, such as lora_A; numbers are in no state dict."""
    found = set(_SAVED)
    for layer in model.modules():
        if hasattr(layer, "adapter_layer_names"):
            names = (*layer.adapter_layer_names, *getattr(layer, "other_param_names", ()))
            found |= {name for name in names if hasattr(getattr(layer, name, None), "state_dict")}
    return found


def _place(words: list[str], parts: Collection[str], names: Collection[str]) -> int | None:
    """Where the name of an adapter is preceded by that of a part, None if nowhere."""
    for n in range(len(words) - 1):
        if words[n] in parts and words[n + 1] in names:
            return n
    return None


def _saved(words: list[str], place: int, parts: Collection[str]) -> str:
    """A key as it is saved; a target that is also saved as a whole stays as it is, since its parts are a copy."""
    before, part, after = words[:place], words[place], words[place + 2 :]
    if part == "modules_to_save":
        return ".".join(words if any(word in parts for word in after) else [*before, *after])
    if part == "lora_magnitude_vector" and after == ["weight"]:
        after = []
    return ".".join([*before, part, *after])
