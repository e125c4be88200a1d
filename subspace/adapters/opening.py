"""Opening what a user gives as an adapter: a path, tensors in memory, or a model."""

# ruff: noqa: PTH118, PTH120 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from subspace.adapters.base.own import own_base
from subspace.adapters.directory import located_weights
from subspace.adapters.format import Source
from subspace.adapters.naming.wrappers import CleanNames, clean_pattern, without_wrappers
from subspace.checkpoints.peft_files import PREFIX
from subspace.errors import FormatError
from subspace.text import counted, listed, shown

__all__ = ["opened"]

_IN_METADATA = "lora_adapter_metadata"
# fields of PEFT's configuration that hold names of modules, or expressions of them
_NAMES = (
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "target_parameters",
)


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
        stored = replace(_opened_path(os.fsdecode(source), adapter_name), adapter_name=adapter_name)
        return _with_own_base(_under_clean_names(stored))
    if hasattr(source, "state_dict") and hasattr(source, "named_modules"):
        from subspace.adapters.live import opened_module

        return _with_own_base(_under_clean_names(opened_module(source, adapter_name)), live=True)
    if isinstance(source, Mapping):
        stored = Source(checkpoints.from_memory(source), adapter_name=adapter_name)
        return _with_own_base(_under_clean_names(stored))
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
    tensors = checkpoints.open_weights(weights)
    config_path = os.path.join(os.path.dirname(weights), CONFIG)
    if os.path.lexists(config_path):
        config = checkpoints.read_json(config_path)
        return Source(tensors, config, config_path=shown(config_path, longest=1000))
    if _IN_METADATA in tensors.metadata:
        where = f"the metadata of {shown(weights, longest=1000)}"
        return Source(tensors, _in_metadata(tensors.metadata[_IN_METADATA], where), config_path=where)
    return Source(tensors)


def _in_metadata(text: str, where: str) -> Mapping[str, Any]:
    from subspace.checkpoints import strict_json

    try:
        value = strict_json.parse(text)
    except ValueError as error:
        raise FormatError(f"{_IN_METADATA} is not valid JSON: {shown(error)}, in {where}") from error
    if not isinstance(value, Mapping):
        raise FormatError(f"{_IN_METADATA} is not a JSON object, in {where}")
    return value


def _under_clean_names(source: Source) -> Source:
    """The source with names, of tensors and of modules, that no wrapper has a word in."""
    tensors, names = without_wrappers(source.tensors)
    if tensors is source.tensors:
        return source if not source.scales and not source.groups else _clean_modules(source, names)
    config = None if source.config is None else _clean_config(source.config)
    return _clean_modules(
        replace(source, tensors=tensors, config=config, notes=(*source.notes, *names.notes)), names
    )


def _clean_modules(source: Source, names: CleanNames) -> Source:
    """The source with clean names of the layers of a model in memory, which PEFT's prefix is not part of."""

    def clean(module: str) -> str:
        name = names.of_module(module)
        return name if source.config is None else name.removeprefix(PREFIX)

    scales = {clean(module): scale for module, scale in source.scales.items()}
    groups = {clean(module): enabled for module, enabled in source.groups.items()}
    return replace(source, scales=scales, groups=groups)


def _clean_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose names of modules fit those of the tensors."""
    return {name: _clean_value(value) if name in _NAMES else value for name, value in config.items()}


def _clean_value(value: Any) -> Any:
    if isinstance(value, str):
        return clean_pattern(value)
    if isinstance(value, list):
        return [_clean_value(item) for item in value]
    if isinstance(value, Mapping):
        return {_clean_value(key): number for key, number in value.items()}
    return value


def _with_own_base(source: Source, *, live: bool = False) -> Source:
    """The source with the base weights that its file holds of the adapted layers, which a note says of a file."""
    own = own_base(source.tensors.layout)
    # PEFT itself saves those of a layer that it trains in full as well
    keys = [key for key in own.weights.values() if not key.startswith(PREFIX)]
    if live or not keys:
        return replace(source, own=own) if own.weights else source
    note = (
        f"The file also holds the base weights of {counted(len(keys), 'module')} ({listed(keys)}); give it as `base` "
        "too where they are needed"
    )
    return replace(source, own=own, notes=(*source.notes, note))
