"""Tensors found in a torch file: a dict, a list, one tensor, or a checkpoint with a dict inside."""

from __future__ import annotations

from typing import Any, TypeGuard

from subspace.checkpoints.torch_tensor import TorchTensor
from subspace.errors import FormatError
from subspace.text import listed, shown

__all__ = ["named_tensors"]

# keys under which trainers save the weights, the more specific ones first
_WRAPPERS = (
    "state_dict", "model_state_dict", "lora_state_dict", "adapter_state_dict", "lora", "adapter",
    "model", "module", "net", "network", "params", "weights",
)  # fmt: skip
_DEEPEST = 4


def named_tensors(root: object, name: str) -> tuple[dict[str, TorchTensor], dict[str, str]]:
    """Tensors by name, and for every entry that was skipped the reason.

    Parameters
    ----------
    root : object
        What the file holds.
    name : str
        The name of the file in errors.

    Raises
    ------
    FormatError
        If there are no tensors, or several nested dictionaries of tensors and none has a usual name.

    Notes
    -----
    A dictionary without tensors of its own is searched under the usual names, at most four levels deep.
    """
    skipped: dict[str, str] = {}
    place: object = root
    for _ in range(_DEEPEST):
        entries = _entries(place)
        tensors = {key: value for key, value in entries.items() if isinstance(key, str) and _is_tensor(value)}
        skipped.update(_reasons(entries, tensors))
        if tensors:
            return tensors, skipped
        inner = _wrapper(entries, name)
        skipped.pop(inner, None)
        place = entries[inner]
    raise _no_tensors(root, name)


def _entries(place: object) -> dict[Any, Any]:
    if isinstance(place, dict):
        # not place.items(): the file may have brought an attribute of that name
        return dict(dict.items(place))
    if isinstance(place, list | tuple):
        return {str(i): value for i, value in enumerate(place)}
    return {"": place}


def _is_tensor(value: object) -> TypeGuard[TorchTensor]:
    return isinstance(value, TorchTensor)


def _reasons(entries: dict[Any, Any], tensors: dict[str, TorchTensor]) -> dict[str, str]:
    return {
        str(key): f"a tensor under a key of type {type(key).__name__}"
        if _is_tensor(value)
        else f"not a tensor ({type(value).__name__})"
        for key, value in entries.items()
        if key not in tensors
    }


def _wrapper(entries: dict[Any, Any], name: str) -> str:
    """Name of the entry to search next."""
    nested = [
        key for key, value in entries.items() if isinstance(key, str) and isinstance(value, dict | list)
    ]
    usual = [key for key in _WRAPPERS if key in nested]
    holding = [key for key in nested if any(map(_is_tensor, _entries(entries[key]).values()))]
    if usual:
        return next((key for key in usual if key in holding), usual[0])
    if len(holding) == 1:
        return holding[0]
    if len(holding) > 1:
        raise FormatError(
            f"Several state dicts in one checkpoint: {listed(holding, most=4)}, in {shown(name)}; "
            "save only the one with the weights"
        )
    raise _no_tensors(entries, name)


def _no_tensors(root: object, name: str) -> FormatError:
    keys = list(root) if isinstance(root, dict) else []
    seen = listed(keys) if keys else f"a {type(root).__name__}"
    return FormatError(
        f"No tensors under text keys: the torch file holds {seen}, in {shown(name)}; "
        "save the state dict of the adapter"
    )
