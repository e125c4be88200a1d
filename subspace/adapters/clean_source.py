"""An opened file without the words of wrappers in its names, and with the base weights that it brings itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from subspace.adapters.base.own import own_base
from subspace.adapters.format import Source
from subspace.adapters.naming.wrappers import CleanNames, clean_pattern, without_wrappers
from subspace.checkpoints.peft_files import PREFIX
from subspace.text import counted, listed

__all__ = ["cleaned"]

# fields of PEFT's configuration that hold names of modules, or expressions of them
_FIELDS = (
    "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "modules_to_save", "target_parameters",
)  # fmt: skip


def cleaned(source: Source, *, live: bool = False) -> Source:
    """The source with names of tensors, modules and patterns that no wrapper has a word in, and its own base weights.

    Parameters
    ----------
    live : whether it is a model in memory, of which no note says that it holds its base weights
    """
    tensors, names = without_wrappers(source.tensors)
    source = _clean_modules(source, names)
    if tensors is not source.tensors:
        config = None if source.config is None else _clean_config(source.config)
        source = replace(source, tensors=tensors, config=config)
    source = replace(source, notes=(*source.notes, *names.notes))
    return _with_own_base(source, live=live)


def _clean_modules(source: Source, names: CleanNames) -> Source:
    """The source with clean names of the layers of a model in memory."""

    def clean(by_module: Mapping[str, Any]) -> dict[str, Any]:
        # PEFT's prefix, which may stand behind a wrapper, is no part of the name of a layer
        prefix = "" if source.config is None else PREFIX
        return {names.of_module(name).removeprefix(prefix): value for name, value in by_module.items()}

    return replace(
        source,
        scales=clean(source.scales),
        groups=clean(source.groups),
        parameters=clean(source.parameters),
        parts=tuple(replace(cleaned(part, live=True), notes=part.notes) for part in source.parts),
    )


def _clean_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _clean_value(value) if name in _FIELDS else value for name, value in config.items()}


def _clean_value(value: Any) -> Any:
    """A name, several, or the keys of a pattern, without the words of wrappers."""
    if isinstance(value, str):
        return clean_pattern(value)
    if isinstance(value, list):
        return [clean_pattern(item) if isinstance(item, str) else item for item in value]
    if isinstance(value, Mapping):
        return {clean_pattern(key): number for key, number in value.items()}
    return value


def _with_own_base(source: Source, *, live: bool) -> Source:
    """The source with the base weights that its file holds of the adapted layers, which a note says of a file."""
    own = own_base(source.tensors.layout)
    # PEFT itself saves those of a layer that it trains in full as well
    keys = [key for key in own.weights.values() if not key.startswith(PREFIX)]
    if live or not keys or source.base is not None:
        return replace(source, own=own)
    note = (
        f"The file also holds the base weights of {counted(len(keys), 'module')} ({listed(keys)}); give it as `base` "
        "too where they are needed"
    )
    return replace(source, own=own, notes=(*source.notes, note))
