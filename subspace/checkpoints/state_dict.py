"""Tensors found in a torch file or in memory: a dict, a list, one tensor, or a checkpoint with a dict inside.

A dict of dicts, such as one of layers that are dicts themselves, is read with dotted names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from subspace.checkpoints.nested import (
    IsTensor,
    entries_of,
    flattened,
    holds_tensors,
    is_container,
    is_trainer_state,
    plain_values,
)
from subspace.checkpoints.torch_tensor import TorchTensor
from subspace.errors import FormatError
from subspace.text import listed, shown

__all__ = ["Found", "is_described", "named_tensors"]

# keys under which trainers save the weights, the more specific ones first
_WRAPPERS = (
    "state_dict", "model_state_dict", "lora_state_dict", "adapter_state_dict", "lora", "adapter",
    "model", "module", "net", "network", "params", "weights",
)  # fmt: skip
_DEEPEST = 4
# state dicts with these names are of one model, while two with other names may be two models
_PARTS_OF_ONE = {
    "unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae", "encoder", "decoder",
    "image_encoder", "vision_encoder", "visual", "vision", "text", "image", "audio",
}  # fmt: skip
_COPIES = ("ema", "teacher", "student", "best", "last", "old", "new", "source", "target", "init")


class Found(NamedTuple):
    """Tensors by name, for every entry that was skipped the reason, and plain values by their place."""

    tensors: dict[str, Any]
    skipped: dict[str, str]
    settings: dict[str, Any]


def is_described(value: object) -> bool:
    """Whether a value is the description of a tensor in a torch file."""
    return isinstance(value, TorchTensor)


def named_tensors(root: object, name: str, is_tensor: IsTensor = is_described) -> Found:
    """Tensors by name, for every entry that was skipped the reason, and the plain values beside them.

    Parameters
    ----------
    root : object
        What the file holds, or a mapping in memory.
    name : str
        The name of the file in errors.
    is_tensor : callable
        What counts as a tensor.

    Raises
    ------
    FormatError
        If there are no tensors, or several nested dictionaries of tensors and none has a usual name.

    Notes
    -----
    A dictionary without tensors of its own is searched under the usual names, at most four levels deep. Where none of
    those leads to tensors, the tree below has dotted names; the state of an optimiser is never part of it.
    """
    skipped: dict[str, str] = {}
    settings: dict[str, Any] = {}
    place, prefix = root, ""
    for _ in range(_DEEPEST):
        entries = entries_of(place)
        tensors = {key: value for key, value in entries.items() if isinstance(key, str) and is_tensor(value)}
        inner = None
        if not tensors or _are_only_numbers(entries, tensors, is_tensor):
            inner, tensors = _wrapper(entries, name, is_tensor), {}
        others = {key: value for key, value in entries.items() if key not in tensors and key != inner}
        skipped.update(_reasons(others, is_tensor))
        settings.update(plain_values(others, prefix) | _numbers(others, prefix, is_tensor))
        if tensors:
            return Found(tensors, skipped, settings)
        if inner is None:
            return _tree(place, root, Found(tensors, skipped, settings), name, is_tensor)
        place, prefix = entries[inner], f"{prefix}{inner}."
    return _tree(place, root, Found({}, skipped, settings), name, is_tensor)


def _tree(place: object, root: object, found: Found, name: str, is_tensor: IsTensor) -> Found:
    """A dict without tensors of its own as its tree, whose parts that hold tensors are not skipped."""
    # tensors that are numbered and have no dict of their own are of a list, or not the adapter's
    named = {
        key: value for key, value in entries_of(place).items() if isinstance(key, str) or not is_tensor(value)
    }
    tensors, left_out = flattened(named, is_tensor, name)
    if not tensors:
        raise _no_tensors(root, name)
    held = {key.partition(".")[0] for key in tensors}
    skipped = {key: why for key, why in found.skipped.items() if key not in held}
    skipped.update(dict.fromkeys(left_out, "the state of an optimiser or trainer"))
    return Found(tensors, skipped, found.settings)


def _reasons(entries: Mapping[Any, Any], is_tensor: IsTensor) -> dict[str, str]:
    return {
        str(key): _why_not(key, value) if is_tensor(value) else f"not a tensor ({type(value).__name__})"
        for key, value in entries.items()
    }


def _why_not(key: object, value: object) -> str:
    number = isinstance(key, str) and _is_number(value)
    return "a number beside the tensors" if number else f"a tensor under a key of type {type(key).__name__}"


def _is_number(value: Any) -> bool:
    return all(size == 1 for size in value.shape)


def _numbers(entries: Mapping[Any, Any], prefix: str, is_tensor: IsTensor) -> dict[str, Any]:
    """Tensors of one element as numbers."""
    found = {
        f"{prefix}{key}": _number(value)
        for key, value in entries.items()
        if isinstance(key, str) and is_tensor(value) and _is_number(value)
    }
    return {place: number for place, number in found.items() if number is not None}


def _number(value: Any) -> Any:
    """The number in a tensor of one element, None if it cannot be read, as on the device "meta"."""
    try:
        return value.item() if hasattr(value, "item") else None
    except (RuntimeError, TypeError, ValueError):
        return None


def _are_only_numbers(entries: Mapping[Any, Any], tensors: Mapping[str, Any], is_tensor: IsTensor) -> bool:
    """Whether the tensors are single numbers, such as a step, beside dicts that hold the weights."""
    if not all(map(_is_number, tensors.values())):
        return False
    return holds_tensors({key: value for key, value in entries.items() if is_container(value)}, is_tensor)


def _usual(entries: Mapping[Any, Any]) -> list[str]:
    return [key for key in _WRAPPERS if is_container(entries.get(key))]


def _wrapper(entries: Mapping[Any, Any], name: str, is_tensor: IsTensor) -> str | None:
    """Name of the entry to search next; None where the entries are parts of one tree.

    Raises
    ------
    FormatError : several entries hold tensors, and may be several models
    """
    nested = [
        key for key, value in entries.items() if isinstance(key, str) and isinstance(value, Mapping | list)
    ]
    usual = _usual(entries)
    # one dict may be in many places
    direct = {id(v): any(map(is_tensor, entries_of(v).values())) for v in _once(entries[k] for k in nested)}
    holding = [key for key in nested if direct[id(entries[key])] and not is_trainer_state(key)]
    if usual:
        deep = (key for key in usual if holds_tensors(entries[key], is_tensor))
        return next((key for key in usual if key in holding), next(deep, usual[0]))
    if len(holding) == 1 and not _is_one_of_many(holding[0], entries, is_tensor):
        return holding[0]
    if len(holding) > 1 and not _are_parts(holding, entries, is_tensor):
        raise FormatError(
            f"Several state dicts in one checkpoint: {listed(holding, most=4)}, in {shown(name)}; "
            "save only the one with the weights"
        )
    return None


def _is_one_of_many(key: str, entries: Mapping[Any, Any], is_tensor: IsTensor) -> bool:
    """Whether the one dict with tensors of its own is a part beside others that are deeper, which hold the adapter."""
    if _is_of_adapter(entries_of(entries[key]), is_tensor):
        return False
    others = {k: v for k, v in entries.items() if k != key}
    try:
        return any("lora" in place.lower() for place in flattened(others, is_tensor, "")[0])
    except FormatError:
        return False


def _are_parts(holding: list[str], entries: Mapping[Any, Any], is_tensor: IsTensor) -> bool:
    """Whether several dicts of tensors are parts of one model: its components, or layers without dotted names."""
    if set(holding) <= _PARTS_OF_ONE:
        return True
    if any(key.lower().startswith(_COPIES) for key in holding):
        return False
    parts = [entries_of(value) for value in _once(entries[key] for key in holding)]
    if any("." in str(inner) for part in parts for inner in part):
        return False
    # lora_A may be a layer of its own, with a weight
    return any("lora" in key.lower() for key in holding) or any(
        _is_of_adapter(part, is_tensor) for part in parts
    )


def _once(values: Iterable[object]) -> Iterable[object]:
    """Each object once."""
    return {id(value): value for value in values}.values()


def _is_of_adapter(entries: Mapping[Any, Any], is_tensor: IsTensor) -> bool:
    """Whether a dict holds a pair by the words of its names."""
    words = {str(inner).lower() for inner, value in entries.items() if is_tensor(value)}
    pairs = ({"a", "b"}, {"down", "up"})
    return any(pair <= words for pair in pairs) or any("lora" in word for word in words)


def _no_tensors(root: object, name: str) -> FormatError:
    keys = list(root) if isinstance(root, Mapping) else []
    seen = listed(keys) if keys else f"a {type(root).__name__}"
    return FormatError(
        f"No tensors under text keys, only {seen}, in {shown(name)}; save the state dict of the adapter"
    )
