"""The file of one adapter in an index: canonical forms as safetensors, and read again a module at a time."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints import strict_json
from subspace.checkpoints.held_file import HeldFile
from subspace.checkpoints.safetensors import SafetensorsFile
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes
from subspace.errors import FileError
from subspace.geometry.canonical import Canonical
from subspace.index.entry import Entry, StoredModule, checksum
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMAT", "place", "read_form", "read_shard", "shard_bytes"]

FORMAT = "subspace.index/1"
_KEY = re.compile(r"[0-9a-f]{40}")
_SMALL, _LARGE = ("S", "a", "b"), ("right", "left")


def place(folder: Path, kind: str, key: str) -> Path:
    """Where the file of a key is: below `kind` ("adapters" or "pairs"), in a folder of its first two digits.

    Raises
    ------
    FileError
        If the key is not one, as in a manifest that was tampered with: a path is never made from other text.
    """
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        raise FileError(
            f"Damaged index: {shown(repr(key))} is not a key, in {shown(folder, longest=1000)}; repair the index"
        )
    return folder / kind / key[:2] / f"{key}.safetensors"


def shard_bytes(entry: Entry, forms: Sequence[Canonical], facts: Mapping[str, Any]) -> tuple[bytes, Entry]:
    """Content of the file of an adapter, and its entry with the places and checksums that this gives.

    Parameters
    ----------
    entry : with its modules, whose places are not known yet
    forms : of the modules, in their order
    facts : of the member that brought it (path, source, reading, step), from which a lost manifest is made again
    """
    modules, tensors = [], dict[str, StoredTensor]()
    small = large = 0
    for module, form in zip(entry.modules, forms, strict=True):
        parts = _parts(form)
        content = zlib.crc32(b"".join(parts[name].tobytes() for name in (*_SMALL, *_LARGE) if name in parts))
        modules.append(replace(module, small=small, large=large, content=content))
        small, large = small + module.small_bytes, large + module.large_bytes
        for name, part in parts.items():
            tensors[f"{module.stored}.{name}"] = StoredTensor(part, str(part.dtype))
    modules = [replace(module, large=module.large + small) for module in modules]
    about = {
        "key": entry.key, "sha256": entry.sha256, "format": entry.format, "base": entry.base,
        "modules": [vars(module) for module in modules], **facts,
    }  # fmt: skip
    text = json.dumps(about)
    content_bytes = safetensors_bytes(
        tensors, {"format": FORMAT, "entry": text, "checksum": str(checksum(text))}
    )
    begin = len(content_bytes) - small - large
    return content_bytes, replace(entry, modules=tuple(modules), begin=begin, size=len(content_bytes))


def _parts(form: Canonical) -> dict[str, NDArray[Any]]:
    """The arrays of a form as they are stored: the small ones first, then the directions."""
    parts = {"S": np.ascontiguousarray(form.S, np.float64)}
    if form.a is not None and form.b is not None:
        parts |= {
            "a": np.ascontiguousarray(form.a, np.float64),
            "b": np.ascontiguousarray(form.b, np.float64),
        }
    return parts | {name: np.ascontiguousarray(getattr(form, name), np.float32) for name in _LARGE}


def read_form(file: HeldFile, begin: int, module: StoredModule) -> Canonical:
    """The canonical form of a module, in float64.

    Parameters
    ----------
    file : of the adapter, in the index
    begin : first byte behind its header

    Raises
    ------
    FileError
        If the bytes are not those that were written.
    """
    small = file.read(begin + module.small, module.small_bytes)
    large = file.read(begin + module.large, module.large_bytes)
    if len(small) + len(large) != module.small_bytes + module.large_bytes:
        raise _damaged(file.path, "it is cut short")
    if zlib.crc32(large, zlib.crc32(small)) != module.content:
        raise _damaged(
            file.path, f"the numbers of module {shown(module.stored)} changed after they were written"
        )
    numbers = np.frombuffer(small, np.float64), np.frombuffer(large, np.float32)
    if not all(np.isfinite(each).all() for each in numbers):
        raise _damaged(file.path, f"module {shown(module.stored)} has numbers that are not finite")
    return _form(module, *numbers)


def _form(module: StoredModule, small: NDArray[Any], large: NDArray[Any]) -> Canonical:
    wide = large.astype(np.float64)
    middle = module.k_in * module.d_in
    right = wide[:middle].reshape(module.k_in, module.d_in)
    left = wide[middle:].reshape(module.k_out, module.d_out)
    S, rest = small[: module.k], small[module.k :]
    if not module.factored:
        return Canonical(right, left, S)
    middle = module.r * module.k_in
    a, b = rest[:middle].reshape(module.r, module.k_in), rest[middle:].reshape(module.r, module.k_out)
    return Canonical(right, left, S, a, b)


def read_shard(path: Path) -> tuple[Entry, dict[str, Any]]:
    """The entry that a file says it is, with every number checked, and the facts of the member that brought it.

    Raises
    ------
    FileError
        If the file is not whole, or not one of an index.
    """
    tensors = SafetensorsFile(path)
    file = HeldFile(path)
    try:
        if tensors.metadata.get("format") != FORMAT:
            raise ValueError("it was not written as a part of an index")
        if tensors.metadata["checksum"] != str(checksum(tensors.metadata["entry"])):
            raise ValueError("what it says of itself changed after it was written")
        about = strict_json.parse(tensors.metadata["entry"])
        modules = tuple(StoredModule.of(facts) for facts in about.pop("modules"))
        begin = file.size - sum(module.small_bytes + module.large_bytes for module in modules)
        entry = Entry(
            _text(about.pop("key")), _text(about.pop("sha256"), none=True), file.size, begin,
            _text(about.pop("format")), _text(about.pop("base"), none=True), modules,
        )  # fmt: skip
        if entry.key != path.stem or begin < 0:
            raise ValueError("it has the name of another")
        names = {f"{module.stored}.{part}" for module in modules for part in _part_names(module)}
        if names != tensors.layout.keys():
            raise ValueError("its tensors have other names")
        for module in modules:
            read_form(file, begin, module)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(str(path), str(error)) from None
    return entry, about


def _part_names(module: StoredModule) -> tuple[str, ...]:
    return (*(_SMALL if module.factored else _SMALL[:1]), *_LARGE)


def _text(value: Any, *, none: bool = False) -> Any:
    if not (isinstance(value, str) or (none and value is None)):
        raise ValueError("a fact is not text")
    return value


def _damaged(path: str, why: str) -> FileError:
    return FileError(
        f"Damaged entry of an index: {shown(why)}, in {shown(path, longest=1000)}; repair the index, or add the "
        "adapter again"
    )
