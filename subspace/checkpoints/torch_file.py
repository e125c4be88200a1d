"""Reader of torch files, zip and legacy, that hold plain tensors; it needs no torch.

The archive is checked by `zip_archive`, the pickle is read by `pickle_machine`, and tensors are copied from the same
open file when they are asked for. No option turns any of the checks off.

References
----------
torch 2.13, torch/serialization.py (`_load`, `_legacy_load`), caffe2/serialize/inline_container.cc (the records of an
archive: data.pkl, data/KEY, byteorder).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.held_file import HeldFile, held
from subspace.checkpoints.pickle_machine import unpickled
from subspace.checkpoints.state_dict import is_described, named_tensors
from subspace.checkpoints.tensor_file import TensorFile, TensorInfo
from subspace.checkpoints.zip_archive import Archive, BrokenMemberError
from subspace.checkpoints.zip_directory import STORED, Entry
from subspace.errors import FileError, FormatError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from subspace.checkpoints.torch_tensor import Storage, TorchTensor

__all__ = ["TorchFile", "torch_root"]

_LONGEST_PICKLE = 64 * 2**20
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class TorchFile(TensorFile):
    """Tensors that torch.save wrote: a dict of them, one nested in a checkpoint, a list ("0", "1", ...), or one.

    A single tensor has the key "", and those of dicts in dicts have dotted keys. Entries that are not tensors are in
    `skipped`, and plain values among them in `settings`.

    Raises
    ------
    FileError
        If the file is damaged.
    UnsafeFileError
        If it asks for anything but plain tensors, or for more work than a file of its size can need.
    FormatError
        If it holds no tensors.
    """

    def __init__(self, path: str | os.PathLike[str] | HeldFile, *, archive: Archive | None = None) -> None:
        file = held(path)
        name = file.path
        self.container = "torch zip" if _is_zip(file) else "torch legacy"
        found = named_tensors(torch_root(file, archive), name, is_described)
        self._tensors: dict[str, TorchTensor] = found.tensors
        layout = {key: TensorInfo(tensor.dtype, tensor.shape) for key, tensor in self._tensors.items()}
        super().__init__(name, layout=layout, skipped=found.skipped, file=file)
        self.settings = found.settings

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        try:
            return self._tensors[key].array()
        except BrokenMemberError:
            raise _damaged(
                "a storage that cannot be unpacked", self._where(key), shown_already=True
            ) from None


def torch_root(file: HeldFile, archive: Archive | None = None) -> object:
    """What a torch file holds: as torch.load(weights_only=True) returns it, with descriptions for the tensors.

    Parameters
    ----------
    archive : Archive, optional
        Of the file, where it was opened before.

    Raises
    ------
    FileError, UnsafeFileError, FormatError
        As `TorchFile`.
    """
    return _from_zip(archive or Archive(file), file.path) if _is_zip(file) else _from_legacy(file)


def _is_zip(file: HeldFile) -> bool:
    return file.read(0, 2) == b"PK"


class _Stored:
    """A storage whose bytes are in the file as they are."""

    def __init__(self, file: HeldFile, begin: int, *, big_endian: bool = False) -> None:
        self._file = file
        self._begin = begin
        self._big_endian = big_endian

    def array(self, start: int, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """`count` numbers from byte `start` on, little-endian."""
        order = dtype.newbyteorder(">" if self._big_endian else "<")
        return self._file.array(self._begin + start, count, order).astype(dtype, copy=False)


class _Packed:
    """A storage that is unpacked whole, each time that a part of it is read."""

    def __init__(self, archive: Archive, entry: Entry, *, big_endian: bool) -> None:
        self._archive = archive
        self._entry = entry
        self._big_endian = big_endian

    def array(self, start: int, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """`count` numbers from byte `start` on, little-endian."""
        order = dtype.newbyteorder(">" if self._big_endian else "<")
        content = self._archive.read(self._entry)
        return np.frombuffer(content, order, count, start).astype(dtype, copy=False)


def _from_zip(archive: Archive, name: str) -> object:
    """What the archive holds."""
    # torch takes the folder of the first member as the folder of all
    folder = next(iter(archive.members), "").split("/")[0]
    pickle = _pickle_member(archive, folder, name)
    root, storages, _ = unpickled(pickle, archive.file.budget, where=shown(name))
    _require_tensors(storages, name)
    big_endian = _is_big_endian(archive, folder, name)
    for storage in storages.values():
        record = archive.members.get(f"{folder}/data/{storage.key}")
        if record is None or record.size != storage.nbytes:
            size = "no bytes" if record is None else f"{record.size} bytes"
            key = shown(storage.key, longest=40)
            raise _damaged(f"{size} for the storage {key} of {storage.nbytes} bytes", name)
        if record.method == STORED:
            storage.content = _Stored(archive.file, record.start, big_endian=big_endian)
        else:
            storage.content = _Packed(archive, record, big_endian=big_endian)
    return root


def _pickle_member(archive: Archive, folder: str, name: str) -> bytes:
    members = archive.members
    pickles = [member for member in members if member.endswith(".pkl")]
    if f"{folder}/constants.pkl" in members or any(
        member.startswith(f"{folder}/code/") for member in members
    ):
        raise _unsafe("it is a TorchScript archive, which is a program", name)
    if pickles != [f"{folder}/data.pkl"] or not all(member.startswith(f"{folder}/") for member in members):
        raise _unsafe("its archive does not have exactly one folder with one data.pkl", name)
    if members[pickles[0]].size > _LONGEST_PICKLE:
        raise _unsafe(f"its data.pkl is longer than {_LONGEST_PICKLE} bytes", name)
    return _member(archive, members[pickles[0]], name)


def _member(archive: Archive, entry: Entry, name: str) -> bytes:
    try:
        return archive.read(entry)
    except BrokenMemberError:
        raise _damaged(f"a {entry.name.rpartition('/')[2]} that cannot be unpacked", name) from None


def _is_big_endian(archive: Archive, folder: str, name: str) -> bool:
    """Whether the numbers were written by a big-endian machine, which torch notes since 2.1."""
    entry = archive.members.get(f"{folder}/byteorder")
    if entry is None:
        return False
    order = _member(archive, entry, name) if entry.size < 10 else b""
    if order not in {b"little", b"big"}:
        raise _damaged("an unknown order of bytes", name)
    return order == b"big"


def _from_legacy(file: HeldFile) -> object:
    """Five pickles (magic number, protocol, system, objects, keys), then every storage after its length."""
    name, budget, where = file.path, file.budget, shown(file.path)
    pickles = file.read(0, _LONGEST_PICKLE)
    magic, _, stop = unpickled(pickles, budget, where=where)
    protocol, _, stop = unpickled(pickles, budget, where=where, start=stop)
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise _damaged("an unknown magic number or protocol", name)
    stop = unpickled(pickles, budget, where=where, start=stop).stop
    root, storages, stop = unpickled(pickles, budget, where=where, start=stop)
    keys, _, position = unpickled(pickles, budget, where=where, start=stop)
    _require_tensors(storages, name)
    if (
        type(keys) is not list
        or not all(isinstance(key, str) for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise _damaged("a list of storages other than those in use", name)
    for key in keys:
        storage = storages[key]
        head = file.read(position, 8)
        if len(head) < 8 or struct.unpack("<q", head)[0] != storage.numel:
            raise _damaged(f"a storage without the {storage.numel} elements of its description", name)
        storage.content = _Stored(file, position + 8)
        position += 8 + storage.nbytes
    if position > file.size:
        raise _damaged(f"{file.size} bytes where the storages need {position}", name)
    return root


def _require_tensors(storages: dict[str, Storage], name: str) -> None:
    if not storages:
        raise FormatError(f"No tensors in the torch file {shown(name)}; save the state dict of the adapter")


def _unsafe(fact: str, name: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"The file {shown(name)} holds more than plain tensors: {fact}; it was not opened; "
        "if you trust its source, convert it to safetensors"
    )


def _damaged(fact: str, name: str, *, shown_already: bool = False) -> FileError:
    where = name if shown_already else shown(name)
    return FileError(f"Damaged torch file: {fact}, in {where}; download or save it again")
