"""Opening the weights of a base model: one file, shards, or a Hugging Face directory with its ``config.json``."""

# ruff: noqa: PTH112, PTH113, PTH118, PTH120 - a command that reads one base need not wait for pathlib

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from subspace.adapters.base.own import own_base
from subspace.checkpoints.peft_files import PREFIX
from subspace.checkpoints.weights_files import model_files, model_weights, weights_files
from subspace.embedded_base import embedded_or
from subspace.errors import FileError, UnrecognisedError
from subspace.text import listed, shown

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile, TensorInfo

__all__ = ["opened", "weights_by_module"]

_OF_ADAPTER = re.compile(r"(?:^|\.)lora[._]")


def opened(path: str) -> tuple[TensorFile, Mapping[str, Any]]:
    """The tensors of a base model, and its configuration (empty without a ``config.json`` next to them).

    Raises
    ------
    FileError : the file cannot be read, or there is no telling which file of a directory holds the weights
    """
    from subspace import checkpoints

    if path.startswith("hf://") or not os.path.lexists(path):
        from subspace import hub

        path = hub.local(embedded_or(path), _chosen)
    # isdir is False where pathlib would raise, for a name that is too long
    file = _weights_in(path) if os.path.isdir(path) else path
    return checkpoints.open_weights(file), _config(os.path.dirname(file))


def _chosen(names: list[str], inside: str, path: str) -> list[str]:
    wanted = model_files(names, inside)
    if not weights_files(wanted):
        raise UnrecognisedError(
            f"No weights of a model in the repository {shown(path)}, which holds "
            f"{listed(names, most=8, empty='no files')}; name a folder or file of it: "
            f"{shown(path.partition(':')[0])}:NAME"
        )
    return wanted


def _weights_in(folder: str) -> str:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise FileError(
            f"Cannot read the directory {shown(folder, longest=1000)}: {error.strerror}"
        ) from None
    found = model_weights(names)
    if found is None:
        others = weights_files(names)
        raise FileError(
            f"Cannot tell which file holds the weights of the model: the directory {shown(folder, longest=1000)} holds "
            f"{listed(others, most=8)}; name the file"
            if others
            else f"No weights of a model in the directory {shown(folder, longest=1000)}: no model.safetensors, no "
            "index of shards, no other file of weights; give the directory of a model, or a file"
        )
    return os.path.join(folder, found)


def _config(folder: str) -> Mapping[str, Any]:
    from subspace import checkpoints

    path = os.path.join(folder, "config.json")
    return checkpoints.read_json(path) if os.path.isfile(path) else {}


def weights_by_module(layout: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Module -> key of every tensor that can be a weight; a single matrix without a dotted name is the module ""."""
    # GPT-2 keeps its causal mask as a bias of four dimensions
    found = [
        key
        for key, info in layout.items()
        if len(info.shape) >= 2 and 0 not in info.shape and not key.endswith((".bias", ".masked_bias"))
    ]
    if len(found) == 1 and "." not in found[0]:
        return {"": found[0]}
    own = {key: module.removeprefix(PREFIX) for module, key in own_base(layout).weights.items()}
    names = {key: own.get(key) or _module_of(key) for key in found if not _OF_ADAPTER.search(key)}
    return {module: key for key, module in names.items()}


def _module_of(key: str) -> str:
    """A key without PEFT's prefix, which may stand behind the name of an attribute, and without its wrappers."""
    outer, _, inner = f".{key.removesuffix('.weight')}".rpartition(f".{PREFIX}")
    name = f"{outer}.{inner}" if outer else inner
    return ".".join(part for part in name.lstrip(".").split(".") if part != "base_layer") or key
