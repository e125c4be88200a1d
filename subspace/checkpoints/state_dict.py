"""Finding the tensors in what torch.load gives: a dict, a list, one tensor, or a checkpoint that nests a dict."""

from __future__ import annotations

from typing import Any

from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["named_tensors"]

# where trainers put the weights, the more specific names first
_WRAPPERS = (
    "state_dict", "model_state_dict", "lora_state_dict", "adapter_state_dict", "lora", "adapter",
    "model", "module", "net", "network", "params", "weights",
)  # fmt: skip
_DEEPEST = 4


def named_tensors(root: object, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors by name, and the reason for every other entry that was passed over.

    Parameters
    ----------
    root : object
        What torch.load gave.
    name : str
        How errors call the file.

    Raises
    ------
    FormatError
        If there are no tensors, or several nested dictionaries of them and none has a customary name.

    Notes
    -----
    A dictionary without tensors of its own is searched, at most four levels down, along the customary names.
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
        # not place.items(): an attribute of that name may have come with the file
        return dict(dict.items(place))
    if isinstance(place, list | tuple):
        return {str(i): value for i, value in enumerate(place)}
    return {"": place}


def _is_tensor(value: object) -> bool:
    import torch

    return type(value) in {torch.Tensor, torch.nn.Parameter}


def _reasons(entries: dict[Any, Any], tensors: dict[str, Any]) -> dict[str, str]:
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
    customary = [key for key in _WRAPPERS if key in nested]
    holding = [key for key in nested if any(map(_is_tensor, _entries(entries[key]).values()))]
    if customary:
        return next((key for key in customary if key in holding), customary[0])
    if len(holding) == 1:
        return holding[0]
    if len(holding) > 1:
        raise FormatError(
            f"one entry of a checkpoint must hold the weights: got {len(holding)} that could "
            f"({', '.join(shown(key, longest=40) for key in holding[:4])}), in {shown(name)}; "
            "save the state dict alone"
        )
    raise _no_tensors(entries, name)


def _no_tensors(root: object, name: str) -> FormatError:
    keys = list(root)[:3] if isinstance(root, dict) else []
    seen = ", ".join(shown(key, longest=40) for key in keys) or f"a {type(root).__name__}"
    return FormatError(
        f"a torch file must hold tensors under text keys: got {seen}, in {shown(name)}; "
        "save the state dict of the adapter"
    )
