"""Reading an adapter from a file, a directory, tensors in memory or a model."""

# ruff: noqa: PTH118, PTH120 - a command that reads one adapter need not wait for pathlib

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subspace.adapters import formats
from subspace.adapters.adapter import Adapter, with_scale
from subspace.adapters.directory import located_weights, no_adapter_itself
from subspace.adapters.format import Format, Ignored, Note, Reading, Source
from subspace.adapters.naming.sorting import in_order
from subspace.errors import FormatError, UnrecognisedError
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.adapters.base.weights import BaseWeights

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
    """Read an adapter of any known format, as module name -> update.

    The format is recognised from the names and shapes of the tensors. Only the header of the file is read here;
    factors are read when they are used.

    Parameters
    ----------
    source : str, path, mapping, nn.Module or Adapter
        Path of a file or of a directory such as PEFT's; ``org/name[@revision][:inside]`` of the Hugging Face hub; a
        mapping of names to NumPy arrays or tensors; a model in memory; or an `Adapter`, to which `scale` and `rename`
        are applied.
    base : str, path, mapping, nn.Module or BaseWeights, optional
        Weights of the base model, as `load_base` takes them. Needed where `source` is a full fine-tune, which is
        read as its difference from the base, or where the adapter rescales or rotates the base weights (IA3, OFT,
        BOFT).
    scale : float, optional
        Multiplier of every ``B @ A``, in place of what the file says: alpha / r, or alpha / sqrt(r) of rsLoRA.
    adapter_name : str, optional
        Which adapter to read, where `source` holds several; needed then.
    enable_lora : sequence of bool, optional
        Which groups of a fused layer are adapted, as loralib's ``MergedLinear`` takes it: ``(True, False, True)``
        for q and v of a layer of q, k and v. By default what the file says, if anything.
    rename : mapping of str to str, optional
        Old -> new names of modules, each a module or a dotted prefix of modules.

    Returns
    -------
    Adapter
        Modules in natural order (layer 2 before layer 10), with the tensors that belong to no update and notes on
        what the file does not say.

    Raises
    ------
    FileError : the file is missing, damaged or unsafe to read
    FormatError : no known format fits, or more than one, or the file contradicts itself
    ShapeError : the factors of a module do not fit together

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
    try:
        return _from_base(opened) or recognised(opened)
    except UnrecognisedError as error:
        raise no_adapter_itself(source) or error from None


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
            f"Invalid `enable_lora` {shown(_as_digits(enable_lora))}: it says of each group of a fused layer whether "
            "it is adapted, and at least one is; give it such as 1,0,1 for q and v"
        )
    return tuple(bool(on) for on in enable_lora)


def _as_digits(groups: Any) -> str:
    bits = not isinstance(groups, str) and all(on in (0, 1) for on in groups)
    return ",".join(str(int(on)) for on in groups) if bits else repr(groups)


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


def recognised(source: Source) -> Adapter:
    """An opened file as an adapter: every format is asked, and exactly one must fit.

    Raises
    ------
    UnrecognisedError : no format fits
    FormatError : several fit, or the one that does cannot read the file
    """
    matching = formats.matching_formats(source)
    if len(matching) > 1:
        names = " or ".join(known.name for known in matching)
        raise FormatError(
            f"Cannot tell the format of {source.path}: it could be {names}; put the tensors of each into a file of "
            "its own"
        )
    if not matching:
        from subspace.adapters.formats import _unsupported as unsupported

        raise unsupported.refused(source) or UnrecognisedError(_unrecognised(source))
    return _adapter(source, matching[0], matching[0].read(source))


def _unrecognised(source: Source) -> str:
    names = ", ".join(known.name for known in formats.every())
    keys = [repr(shown(key, longest=80)) if key else "without a name" for key in source.tensors.layout]
    what = (
        f"no LoRA keys among {counted(len(keys), 'tensor')} ({listed(keys, most=4)})"
        if keys
        else "no tensors"
    )
    return (
        f"Not an adapter of a known format: {what}, in {source.path}; for a full fine-tune give its base model as "
        f"`base` (the known formats are {names})"
    )


def _adapter(source: Source, known: Format, reading: Reading) -> Adapter:
    by_name = {update.module: update for update in reading.updates}
    for update in reading.updates:
        if by_name[update.module] is not update:
            raise FormatError(
                f"Two updates of module {shown(update.module)} in {source.path}; take one of them out"
            )
    updates = {name: by_name[name] for name in in_order(by_name)}
    if not updates:
        raise FormatError(
            f"No updates in {source.path}: it has keys of the format {known.name} and no complete pair; the file is "
            "incomplete"
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
    """A full fine-tune as its difference from the base; None without a base, or where the file is an adapter."""
    if source.base is None or formats.matching_formats(source):
        return None
    from subspace.adapters.finetune import difference

    return difference(source, source.base)
