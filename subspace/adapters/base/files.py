"""Opening the weights of a base model, and which of its tensors they are.

A base is one file, shards, or a Hugging Face directory with its ``config.json``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from subspace.errors import FileError, shown

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile

__all__ = ["opened", "weights_by_module"]

_SINGLE = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npy", ".npz")
_INDEX = ".index.json"


def opened(path: str) -> tuple[TensorFile, Mapping[str, Any]]:
    """Tensors at a path, and the model's configuration beside them (empty without one).

    Raises
    ------
    FileError : the file cannot be read, or a directory does not say which of its files holds the weights
    """
    from subspace import checkpoints

    if not os.path.lexists(path):
        from subspace.adapters.sources import hub

        path = hub.local(path, base=True)
    # os.path.isdir is False where pathlib would raise, for a name that is too long
    file = _weights_in(path) if os.path.isdir(path) else path  # noqa: PTH112
    open_it = checkpoints.open_index if file.endswith(_INDEX) else checkpoints.open_tensors
    return open_it(file), _config(os.path.dirname(file))  # noqa: PTH120


def _weights_in(folder: str) -> str:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise FileError(
            f"a base directory must be readable: got {shown(error.strerror)}, in {shown(folder, longest=1000)}"
        ) from None
    indexes = [name for name in names if name.endswith((f".safetensors{_INDEX}", f".bin{_INDEX}"))]
    single = [name for name in _SINGLE if name in names]
    others = [name for name in names if name.lower().endswith(_SUFFIXES)]
    # the customary names first, safetensors before torch
    chosen = [*(n for n in indexes if n.endswith(f".safetensors{_INDEX}")), *indexes, *single]
    if not chosen and len(others) != 1:
        raise FileError(
            f"a base directory must hold model.safetensors, an index of shards or one file of weights: got "
            f"{shown(', '.join(others[:8])) or 'none of them'}, in {shown(folder, longest=1000)}; name the file"
        )
    return os.path.join(folder, (chosen or others)[0])  # noqa: PTH118


def _config(folder: str) -> Mapping[str, Any]:
    from subspace import checkpoints

    path = os.path.join(folder, "config.json")  # noqa: PTH118
    return checkpoints.read_json(path) if os.path.isfile(path) else {}  # noqa: PTH113


def weights_by_module(layout: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    """(module, key) of every tensor that can be a weight; one bare matrix alone is the module ""."""
    found = []
    for key, info in layout:
        # GPT-2 keeps its causal mask as a bias of four dimensions
        if len(info.shape) >= 2 and 0 not in info.shape and not key.endswith((".bias", ".masked_bias")):
            found.append((_module_of(key), key))
    if len(found) == 1 and "." not in found[0][1]:
        return [("", found[0][1])]
    return [(module, key) for module, key in found if ".lora_" not in f".{key}"]


def _module_of(key: str) -> str:
    return key.removesuffix(".weight").removesuffix(".base_layer").removeprefix("base_model.model.")
