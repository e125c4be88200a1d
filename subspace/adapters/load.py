"""A file, a directory, tensors in memory or a model -> an `Adapter`: module name -> update."""

# ruff: noqa: PTH118, PTH120 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subspace.adapters import formats
from subspace.adapters.adapter import Adapter, with_scale
from subspace.adapters.directory import located_weights
from subspace.adapters.format import Format, Ignored, Note, Reading, Source
from subspace.adapters.naming.sorting import in_order
from subspace.errors import FormatError, UnrecognisedError
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters.base.weights import BaseWeights

if TYPE_CHECKING:
    pass

__all__ = ["load_adapter", "recognised"]

_IN_METADATA = "lora_adapter_metadata"


def load_adapter(
    source: Any,
    *,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    rename: Mapping[str, str] | None = None,
) -> Adapter:
    """Read an adapter: module name -> low-rank or dense update, factors read when asked for.

    Parameters
    ----------
    source : path of a file or a PEFT directory, ``org/name[@revision][:inside]`` of the Hugging Face hub, a mapping
        of names to arrays or tensors, an ``nn.Module``, or an `Adapter`, which is returned as it is
    base : base weights (a path or `BaseWeights`); needed where `source` is a full fine-tune, or
        an adapter that rescales or rotates them (IA3, OFT)
    scale : multiplier of every ``B @ A``, overriding what the file says
    adapter_name : which adapter, where the file holds several
    enable_lora : which groups of a fused layer are adapted, in loralib's words
    rename : old -> new names of modules, each a module or a dotted prefix of modules

    Raises
    ------
    FileError : the file cannot be read
    FormatError : no known format claims it, or more than one does
    ShapeError : factors that do not multiply

    Examples
    --------
    >>> import numpy as np
    >>> adapter = load_adapter({"q.lora_A": np.ones((2, 4)), "q.lora_B": np.ones((3, 2))})
    >>> adapter["q"].r, adapter["q"].d_in, adapter["q"].d_out
    (2, 4, 3)
    """
    adapter = source if isinstance(source, Adapter) else _read(source, base, adapter_name, enable_lora)
    if rename:
        from subspace.adapters.naming.rename import renamed

        adapter = renamed(adapter, rename)
    return adapter if scale is None else with_scale(adapter, scale)


def _read(source: Any, base: Any, adapter_name: str | None, enable_lora: Sequence[bool] | None) -> Adapter:
    opened = replace(_opened(source, adapter_name), enabled=_groups(enable_lora), base=_base(base))
    return _from_base(opened) or recognised(opened)


def _base(base: Any) -> BaseWeights | None:
    if base is None:
        return None
    from subspace.adapters.base.weights import load_base

    return load_base(base)


def _groups(enable_lora: Sequence[bool] | None) -> tuple[bool, ...] | None:
    if enable_lora is None:
        return None
    if isinstance(enable_lora, str) or not all(on in (0, 1) for on in enable_lora) or not any(enable_lora):
        raise FormatError(
            f"enable_lora must say of each group whether it is adapted: got {shown(repr(enable_lora))}; "
            "give e.g. (True, False, True) for q and v"
        )
    return tuple(bool(on) for on in enable_lora)


def _opened(source: Any, adapter_name: str | None) -> Source:
    from subspace import checkpoints

    if isinstance(source, str | bytes | os.PathLike):
        return replace(_opened_path(os.fsdecode(source), adapter_name), adapter_name=adapter_name)
    if hasattr(source, "state_dict") and hasattr(source, "named_modules"):
        from subspace.adapters.live import opened_module

        return opened_module(source, adapter_name)
    if isinstance(source, Mapping):
        return Source(checkpoints.from_memory(source), adapter_name=adapter_name)
    if hasattr(source, "shape"):
        return Source(checkpoints.from_memory({"": source}))
    raise FormatError(
        f"an adapter must be a path, a mapping of tensors or a model: got {shown(type(source).__name__)}"
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
        raise FormatError(f"{_IN_METADATA} must be JSON: {shown(error)}, in {where}") from error
    if not isinstance(value, Mapping):
        raise FormatError(f"{_IN_METADATA} must be a JSON object, in {where}")
    return value


def recognised(source: Source) -> Adapter:
    """An opened file as an adapter: every format is asked, and exactly one must claim it.

    Raises
    ------
    UnrecognisedError : no format does
    FormatError : several do, or the one that does cannot read it
    """
    claimants = formats.claiming(source)
    if len(claimants) > 1:
        names = ", ".join(claimant.name for claimant in claimants)
        raise FormatError(f"one format must claim a file: {names} claim {source.path}; split the file")
    if not claimants:
        from subspace.adapters.formats import _unsupported as strangers

        raise strangers.refused(source) or UnrecognisedError(_notrecognised(source))
    return _adapter(source, claimants[0], claimants[0].read(source))


def _notrecognised(source: Source) -> str:
    names = ", ".join(known.name for known in formats.every())
    keys = list(source.tensors.layout)
    first = ", ".join(shown(repr(key), longest=80) for key in keys[:4])
    what = f"{len(keys)} tensors, first keys {first}" if keys else "no tensors"
    return (
        f"an adapter must be of a known format ({names}): {source.path} holds {what} and no LoRA keys; "
        "for a full fine-tune give its base with --base"
    )


def _adapter(source: Source, known: Format, reading: Reading) -> Adapter:
    by_name = {update.module: update for update in reading.updates}
    for update in reading.updates:
        if by_name[update.module] is not update:
            raise FormatError(
                f"a module must be adapted once: {shown(update.module)} is twice in {source.path}"
            )
    updates = {name: by_name[name] for name in in_order(by_name)}
    if not updates:
        raise FormatError(
            f"an adapter must hold at least one pair: got {known.name} keys and none, in {source.path}; "
            "the file is incomplete"
        )
    return Adapter(
        path=source.tensors.path,
        format=known.name,
        container=source.tensors.container,
        updates=updates,
        ignored=reading.ignored + tuple(Ignored(key, why) for key, why in source.tensors.skipped.items()),
        unknown=reading.unknown,
        notes=tuple(note if isinstance(note, Note) else Note(note) for note in reading.notes),
        config=source.config or {},
        tensors=source.tensors,
    )


def _from_base(source: Source) -> Adapter | None:
    """A full fine-tune as its difference from the base; None without a base, or where the file is an adapter itself."""
    if source.base is None or formats.claiming(source):
        return None
    from subspace.adapters.finetune import difference

    return difference(source, source.base)
