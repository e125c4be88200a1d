"""Opening what a user gives as an adapter: a path, tensors in memory, or a model."""

# ruff: noqa: PTH118, PTH120 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from subspace.adapters.directory import located_weights
from subspace.adapters.format import Source
from subspace.errors import FormatError
from subspace.text import listed, shown

__all__ = ["opened"]

_IN_METADATA = "lora_adapter_metadata"


def opened(source: Any, adapter_name: str | None = None) -> Source:
    """What a user gives as an adapter, opened.

    Parameters
    ----------
    source : as `load_adapter` takes it, but no `Adapter`
    adapter_name : which adapter of a directory, or of a model in memory, that holds several

    Raises
    ------
    FileError : there is no such file, or it is damaged or unsafe to read
    FormatError : it is nothing that can hold an adapter
    """
    from subspace import checkpoints

    if isinstance(source, str | bytes | os.PathLike):
        found = _opened_path(os.fsdecode(source), adapter_name)
        return replace(found, adapter_name=adapter_name, settings=_settings(found))
    if hasattr(source, "state_dict") and hasattr(source, "named_modules"):
        from subspace.adapters.live import opened_module

        return opened_module(source, adapter_name)
    if isinstance(source, Mapping):
        tensors = checkpoints.from_memory(source)
        return Source(tensors, adapter_name=adapter_name, settings=tensors.settings)
    if hasattr(source, "shape"):
        return Source(checkpoints.from_memory({"": source}))
    raise FormatError(
        f"Cannot read an adapter from a value of type {shown(type(source).__name__)}; give a path, a mapping of "
        "names to tensors, or a model"
    )


def _opened_path(path: str, adapter_name: str | None) -> Source:
    from subspace import checkpoints
    from subspace.checkpoints.weights_files import CONFIG

    weights = located_weights(path, adapter_name)
    tensors, notes = checkpoints.open_weights(weights), _unread(path, weights)
    config_path = os.path.join(os.path.dirname(weights), CONFIG)
    if os.path.lexists(config_path):
        config = checkpoints.read_json(config_path)
        return Source(tensors, config, config_path=shown(config_path, longest=1000), notes=notes)
    if _IN_METADATA in tensors.metadata:
        where = f"the metadata of {shown(weights, longest=1000)}"
        # without a field it says nothing, which is what diffusers takes it for
        inside = _in_metadata(tensors.metadata[_IN_METADATA], where) or None
        return Source(tensors, inside, config_path=where, notes=notes)
    return Source(tensors, notes=notes)


def _unread(path: str, weights: str) -> tuple[str, ...]:
    """The note that a directory holds other files of weights than the one that was read."""
    if path == weights:
        return ()  # the user named the file
    from subspace.checkpoints.weights_files import unread_weights

    folder, read = os.path.split(weights)
    others = unread_weights(os.listdir(folder or os.curdir), read)
    if not others:
        return ()
    return (f"{shown(read)} was read; {listed(others)}, which the directory also holds, was not",)


def _settings(source: Source) -> Mapping[str, Any]:
    """Plain values beside the tensors, in the metadata, and in a configuration that is not PEFT's."""
    from subspace.checkpoints.nested import plain_values

    settings = dict(source.tensors.settings)
    settings |= {f"metadata.{key}": text for key, text in source.tensors.metadata.items() if len(text) < 40}
    if source.config is not None and "peft_type" not in source.config:
        settings |= plain_values(source.config, "")
    return settings


def _in_metadata(text: str, where: str) -> Mapping[str, Any]:
    from subspace.checkpoints import strict_json

    try:
        value = strict_json.parse(text)
    except ValueError as error:
        raise FormatError(f"{_IN_METADATA} is not valid JSON: {shown(error)}, in {where}") from error
    if not isinstance(value, Mapping):
        raise FormatError(f"{_IN_METADATA} is not a JSON object, in {where}")
    return value
