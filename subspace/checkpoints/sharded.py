"""Checkpoints in shards: an index says which file holds which tensor.

References
----------
transformers, `save_pretrained` (model.safetensors.index.json, pytorch_model.bin.index.json).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from subspace.checkpoints.held_file import HeldFile, Stamp
from subspace.checkpoints.json_files import read_json
from subspace.checkpoints.regular_file import path_text
from subspace.checkpoints.tensor_file import StoredMatrix, TensorFile, TensorInfo
from subspace.errors import FileError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ShardedFile", "index_in"]

_ENDING = ".index.json"
_SUFFIXES = {".safetensors": ("safetensors",), ".bin": ("torch zip", "torch legacy")}
_LONGEST_INDEX = 100_000_000  # 400,000 tensors of long names
_CUSTOMARY = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class ShardedFile(TensorFile):
    """Tensors of all shards as one file; a shard is opened when one of its tensors is needed, one shard at a time.

    Raises
    ------
    FileError
        If the index or a shard is missing, damaged or not a regular file, or a tensor is not where the index says.
    UnsafeFileError
        If the index points outside its directory, or to another kind of file.

    Notes
    -----
    Shards may be symbolic links to anywhere, as in the cache of the Hugging Face hub: only the names in the index
    are checked.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = path_text(path)
        self._index = index_in(name) if os.path.isdir(name) else name  # noqa: PTH112 - False, never an error
        self._directory = os.path.dirname(self._index)  # noqa: PTH120 - keeps the path as the user wrote it
        self._index_file = HeldFile(self._index)
        self._shard_of = _weight_map(self._index_file)
        first = next(iter(self._shard_of.values()))
        suffix = next(suffix for suffix in _SUFFIXES if first.endswith(suffix))
        self._containers = _SUFFIXES[suffix]
        self.container = "sharded safetensors" if suffix == ".safetensors" else "sharded torch"
        # missing shards are found now; their content is checked when it is needed
        self._stamps: dict[str, Stamp] = {
            shard: HeldFile(self._path_of(shard)).stamp for shard in dict.fromkeys(self._shard_of.values())
        }
        self._open: tuple[str, TensorFile] | None = None
        super().__init__(name, layout=_Layout(self._shard_of, self._shard))

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        return self._shard(self._shard_of[key]).raw(key)

    def stored(self, key: str, shape: tuple[int, int] | None = None) -> StoredMatrix:  # noqa: D102
        self.info(key)
        return self._shard(self._shard_of[key]).stored(key, shape)

    def release(self) -> None:  # noqa: D102
        self._open = None

    def sha256(self) -> str:
        """SHA-256 over the digests of the index and of every shard, in order of their names."""
        import hashlib

        sha = hashlib.sha256(f"{self._index_file.sha256()}  index\n".encode())
        for shard in sorted(self._stamps):
            sha.update(f"{self._held(shard).sha256()}  {shard}\n".encode("utf-8", "surrogateescape"))
        return sha.hexdigest()

    def stamps(self) -> tuple[Stamp, ...]:  # noqa: D102
        return (self._index_file.stamp, *self._stamps.values())

    def _path_of(self, shard: str) -> str:
        return os.path.join(self._directory, shard)  # noqa: PTH118

    def _held(self, shard: str) -> HeldFile:
        """A shard opened again, which must be the file that it was."""
        file = HeldFile(self._path_of(shard))
        if file.stamp != self._stamps[shard]:
            raise file.changed()
        return file

    def _shard(self, shard: str) -> TensorFile:
        if self._open is None or self._open[0] != shard:
            from subspace.checkpoints import open_tensors

            self._open = None  # one shard in memory at a time
            file = open_tensors(self._held(shard))
            if file.container not in self._containers:
                raise UnsafeFileError(
                    f"Wrong kind of shard: {file.container}, where the index has {self.container}, "
                    f"in {shown(self._path_of(shard))}; download it again"
                )
            self._open = shard, file
        return self._open[1]


class _Layout(Mapping[str, TensorInfo]):
    """Type and shape of every tensor in the index, read from its shard on first use."""

    def __init__(self, shard_of: Mapping[str, str], opened: Any) -> None:
        self._shard_of = shard_of
        self._opened = opened
        self._known: dict[str, TensorInfo] = {}

    def __len__(self) -> int:
        return len(self._shard_of)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __contains__(self, key: object) -> bool:
        return key in self._shard_of

    def __getitem__(self, key: str) -> TensorInfo:
        if key not in self._known:
            shard = self._shard_of[key]
            file: TensorFile = self._opened(shard)
            # only what the index places in this shard: another shard may hold a tensor of the same name
            self._known.update(
                (name, info) for name, info in file.layout.items() if self._shard_of.get(name) == shard
            )
            if key not in file.layout:
                raise FileError(
                    f"No tensor {shown(key)} in the shard, though the index lists it there, in "
                    f"{shown(file.path)}; download the index and the shards again"
                )
        return self._known[key]


def index_in(directory: str) -> str:
    """Path of the index in a directory, safetensors before torch; FileError if there is none, or several."""
    try:
        found = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith(_ENDING))
    except OSError as error:
        raise FileError(
            f"Cannot read the directory {shown(directory)}: {shown(error.strerror)}; check the path"
        ) from None
    chosen = [name for name in _CUSTOMARY if name in found][:1] or found
    if len(chosen) != 1:
        what = f"{len(chosen)} indices" if chosen else "No index"
        raise FileError(
            f"{what} of shards (*{_ENDING}) in the directory {shown(directory)}; "
            "give the path of the index or of a weights file"
        )
    return os.path.join(directory, chosen[0])  # noqa: PTH118


def _weight_map(file: HeldFile) -> dict[str, str]:
    index = file.path
    weight_map = read_json(file, limit_bytes=_LONGEST_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FileError(f"No weight_map in the index of shards {shown(index)}; download it again")
    kind = next((suffix for suffix in _SUFFIXES if index.endswith(suffix + _ENDING)), None)
    for key, shard in weight_map.items():
        fact = _objection(shard, kind)
        if fact:
            raise UnsafeFileError(
                f"The index does not name a file next to it for {shown(key)}: {fact}, in {shown(index)}; "
                "download it again from its source"
            )
        kind = kind or next(suffix for suffix in _SUFFIXES if shard.endswith(suffix))
    return weight_map


def _objection(shard: object, kind: str | None) -> str:
    """What is wrong with the name of a shard; "" if nothing is."""
    if not isinstance(shard, str):
        return f"a value of type {type(shard).__name__}"
    if shard in {"", ".", ".."} or any(character in shard for character in "/\\:\0"):
        return f"{shown(shard, longest=80)!r}, which is not a plain file name"
    if not shard.endswith((kind,) if kind else tuple(_SUFFIXES)):
        return f"{shown(shard, longest=80)!r}, which is not a {kind or '.safetensors or .bin'} file"
    return ""
