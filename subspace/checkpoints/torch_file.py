"""Reader of torch files, zip and legacy, that hold plain tensors.

Three checks in this order: the archive (`zip_archive`), the pickles (`pickle_check`), torch's restricted loader. The
first two need no torch, so a hostile file is refused in milliseconds, and no option turns any of them off.
"""

from __future__ import annotations

import mmap
import os
import struct
import warnings
import zipfile
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from subspace.checkpoints.in_memory import stored_array
from subspace.checkpoints.pickle_check import checked_pickle
from subspace.checkpoints.regular_file import open_regular, path_text
from subspace.checkpoints.state_dict import named_tensors
from subspace.checkpoints.tensor_file import TensorFile, place
from subspace.checkpoints.zip_archive import checked_archive
from subspace.errors import FileError, FormatError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.checkpoints.pickle_calls import Storage

__all__ = ["TorchFile"]

_LONGEST_PICKLE = 64 * 2**20
_FIRST_SAFE_TORCH = (2, 10)  # CVE-2026-24747: memory corruption under weights_only before it
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class TorchFile(TensorFile):
    """Tensors that torch.save wrote: a dict of them, one nested in a checkpoint, a list ("0", "1", ...), or one.

    A single tensor has the key "", and those of dicts in dicts have dotted keys. Entries that are not tensors are in
    `skipped`, and plain values among them in `settings`.

    Raises
    ------
    FileError
        If the file is damaged, or torch cannot read it.
    UnsafeFileError
        If it asks for anything but plain tensors, or the installed torch is older than 2.10.
    FormatError
        If it holds no tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = path_text(path)
        with open_regular(path) as file:
            self.container = "torch zip" if file.read(2) == b"PK" else "torch legacy"
            file.seek(0)
            if self.container == "torch zip":
                _check_zip(file, name)
            else:
                _check_legacy(file, name)
            file.seek(0)
            root = _loaded(file, name)
        found = named_tensors(root, name)
        self._arrays: dict[str, NDArray[Any]] = {}
        layout = {}
        for key, tensor in found.tensors.items():
            self._arrays[key], layout[key] = stored_array(tensor, where=place(name, key))
        super().__init__(name, layout=layout, skipped=found.skipped)
        self.settings = found.settings

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        return self._arrays[key]


def _check_zip(file: BinaryIO, name: str) -> None:
    archive = checked_archive(file, name)
    members = {member.filename: member for member in archive.infolist()}
    # torch takes the folder of the first member as the folder of all
    folder = next(iter(members), "").split("/")[0]
    pickles = [member for member in members if member.endswith(".pkl")]
    if f"{folder}/constants.pkl" in members or f"{folder}/code/" in " ".join(members):
        raise _unsafe("it is a TorchScript archive, which is a program", name)
    if pickles != [f"{folder}/data.pkl"] or not all(member.startswith(f"{folder}/") for member in members):
        raise _unsafe("its archive does not have exactly one folder with one data.pkl", name)
    if members[pickles[0]].file_size > _LONGEST_PICKLE:
        raise _unsafe(f"its data.pkl is longer than {_LONGEST_PICKLE} bytes", name)
    try:
        pickle = archive.read(pickles[0])
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, struct.error):
        raise _damaged("a data.pkl that cannot be unpacked", name) from None
    _, storages = checked_pickle(BytesIO(pickle), where=shown(name))
    _require_tensors(storages, name)
    for storage in storages.values():
        record = members.get(f"{folder}/data/{storage.key}")
        if record is None or record.file_size < storage.numel * storage.itemsize:
            size = "no bytes" if record is None else f"{record.file_size} bytes"
            expected = storage.numel * storage.itemsize
            raise _damaged(
                f"{size} for the storage {shown(storage.key, longest=40)} of {expected} bytes", name
            )


def _check_legacy(file: BinaryIO, name: str) -> None:
    """Five pickles (magic number, protocol, system, objects, keys), then every storage after its length."""
    size = os.fstat(file.fileno()).st_size
    with mmap.mmap(file.fileno(), min(size, _LONGEST_PICKLE), access=mmap.ACCESS_READ) as pickles:
        where = shown(name)
        magic, protocol = (checked_pickle(pickles, where=where)[0] for _ in range(2))
        if (magic, protocol) != (_MAGIC, _PROTOCOL):
            raise _damaged("an unknown magic number or protocol", name)
        checked_pickle(pickles, where=where)
        _, storages = checked_pickle(pickles, where=where)
        keys, _ = checked_pickle(pickles, where=where)
        position = pickles.tell()
    _require_tensors(storages, name)
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise _damaged("a list of storages other than those in use", name)
    for key in keys:
        position = _after_storage(file, position, storages[key], name)
    if position > size:
        raise _damaged(f"{size} bytes where the storages need {position}", name)


def _require_tensors(storages: dict[str, Storage], name: str) -> None:
    if not storages:
        raise FormatError(f"No tensors in the torch file {shown(name)}; save the state dict of the adapter")


def _after_storage(file: BinaryIO, position: int, storage: Storage, name: str) -> int:
    file.seek(position)
    head = file.read(8)
    if len(head) < 8 or struct.unpack("<q", head)[0] != storage.numel:
        raise _damaged(f"a storage without the {storage.numel} elements of its description", name)
    return position + 8 + storage.numel * storage.itemsize


def _loaded(file: BinaryIO, name: str) -> object:
    """Root object of a checked file; torch's own messages are dropped, since they advise to load it unsafely."""
    try:
        import torch
    except ImportError:
        raise FileError(
            f"The package torch is not installed; it is needed to read {shown(name)}: pip install torch, "
            "or convert the file to safetensors"
        ) from None
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _FIRST_SAFE_TORCH:
        raise UnsafeFileError(
            f"The installed torch {torch.__version__} is too old to read {shown(name)} safely (CVE-2026-24747); "
            "upgrade to torch 2.10 or newer, or convert the file to safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except Exception:  # noqa: BLE001 - torch raises ten kinds of them on damaged files, MemoryError too
        raise _damaged("torch cannot read it", name) from None


def _unsafe(fact: str, name: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"The file {shown(name)} holds more than plain tensors: {fact}; it was not opened; "
        "if you trust its source, convert it to safetensors"
    )


def _damaged(fact: str, name: str) -> FileError:
    return FileError(f"Damaged torch file: {fact}, in {shown(name)}; download or save it again")
