"""Names and arrays of a file, read lazily and safely, whatever its container.

`open_tensors` opens one file, `open_index` a checkpoint in shards, `from_memory` arrays that are already
loaded; all three return a `TensorFile`. Containers are recognised by their first bytes, and no file can run code:
pickles are read by a machine that knows only what plain tensors need (`pickle_machine`), and no option turns this off.
A file is opened once, and all that is checked, parsed, computed with and hashed is read from there (`held_file`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.checkpoints.held_file import HeldFile, held
from subspace.checkpoints.json_files import read_json
from subspace.checkpoints.tensor_file import StoredMatrix, TensorFile, TensorInfo

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = [
    "IN_MEMORY",
    "StoredMatrix",
    "TensorFile",
    "TensorInfo",
    "from_memory",
    "open_index",
    "open_tensors",
    "open_weights",
    "read_json",
]

IN_MEMORY = "the state dict in memory"  # what stands for the path of tensors that were read from no file


def open_tensors(path: str | os.PathLike[str] | HeldFile) -> TensorFile:
    """Tensors of one file: safetensors, torch (zip or legacy), npz, npy or GGUF, recognised by its first bytes.

    Raises
    ------
    FileError
        If it is not a regular file, is none of these containers, or is damaged.
    UnsafeFileError
        If it asks for something that no weights need.
    """
    from subspace.checkpoints.sniff import container_of

    file = held(path)
    container = container_of(file)
    if container == "safetensors":
        from subspace.checkpoints.safetensors import SafetensorsFile

        return SafetensorsFile(file)
    if container == "zip":
        return _opened_archive(file)
    if container == "npy":
        from subspace.checkpoints.numpy_file import NpyFile

        return NpyFile(file)
    if container == "gguf":
        from subspace.checkpoints.gguf_file import GgufFile

        return GgufFile(file)
    from subspace.checkpoints.torch_file import TorchFile

    return TorchFile(file)


def _opened_archive(file: HeldFile) -> TensorFile:
    from subspace.checkpoints.zip_archive import Archive, container_of_members

    archive = Archive(file)
    if container_of_members(archive) == "npz":
        from subspace.checkpoints.numpy_file import NpzFile

        return NpzFile(file, archive=archive)
    from subspace.checkpoints.torch_file import TorchFile

    return TorchFile(file, archive=archive)


def open_index(path: str | os.PathLike[str]) -> TensorFile:
    """Tensors of a checkpoint in shards, from its index or from the directory that holds one.

    Raises
    ------
    FileError
        If the index or a shard is missing, damaged, or points outside its directory.
    """
    from subspace.checkpoints.sharded import ShardedFile

    return ShardedFile(path)


def open_weights(path: str | os.PathLike[str]) -> TensorFile:
    """Tensors of one file, or of the shards of which it is the index; errors as `open_tensors` and `open_index`."""
    return open_index(path) if str(path).endswith(".index.json") else open_tensors(path)


def from_memory(tensors: Mapping[str, Any], name: str = IN_MEMORY) -> TensorFile:
    """Tensors that are already loaded: a mapping of names to NumPy arrays or torch tensors.

    Parameters
    ----------
    tensors : mapping of str to array or tensor, or to further mappings, whose tensors have dotted names
    name : str
        How errors name the source, after "in" or "of".

    Raises
    ------
    FormatError
        If a value is neither.
    """
    from subspace.checkpoints.in_memory import MemoryFile

    return MemoryFile(tensors, name=name)


def __dir__() -> list[str]:
    return list(__all__)
