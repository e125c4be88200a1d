"""The adapters that paths stand for: files, directories of adapters, and what lies below them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from subspace.adapters.naming.sorting import in_order
from subspace.checkpoints.weights_files import ADAPTER_WEIGHTS, CONFIG, unread_weights, weights_files
from subspace.errors import FileError
from subspace.text import counted, listed, shown

__all__ = ["Found", "adapters_below"]

_DEEPEST, _MOST = 8, 200_000  # levels of folders below the one that was named, and folders in all
_WHOLE_MODEL = re.compile(r"(?:(?:diffusion_)?pytorch_model|model|consolidated|tf_model|flax_model)[.\-].*")
_TENSORS = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".gguf", ".pth.lora")


class Found(NamedTuple):
    """What lies at some paths.

    Attributes
    ----------
    paths : of adapters, each once, in the order given and then by name
    notes : what was not looked at
    """

    paths: list[str]
    notes: tuple[str, ...]


def adapters_below(paths: Sequence[str | os.PathLike[str]]) -> Found:
    """The adapters that paths stand for.

    A file, an adapter's directory and a repository of the hub stand for themselves; any other directory for the
    adapters in it and below it, checkpoints included.

    Notes
    -----
    Hidden folders, links to folders, whole models (``model.safetensors``) and what trainers save beside an adapter are
    left out, as is a torch file beside a safetensors file of the same name. At most 8 levels and 200 000 folders.
    """
    found: dict[str, None] = {}
    notes: list[str] = []
    for path in (os.fspath(each) for each in paths):
        if not Path(path).is_dir():
            found[path] = None
            continue
        walk = _Walk(path)
        found.update(dict.fromkeys(walk.adapters()))
        notes += walk.notes()
    return Found(list(found), tuple(notes))


class _Walk:
    """One directory and what is below it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._models: list[str] = []
        self._unread: list[str] = []
        self._folders = 0

    def notes(self) -> list[str]:
        notes = []
        if self._models:
            notes.append(
                f"{counted(len(self._models), 'file')} of whole models not read: {listed(self._models)}; name one to "
                "read it, with its base"
            )
        if self._unread:
            notes.append(
                f"{counted(len(self._unread), 'folder')} not looked into, as they lie too deep, are too many or cannot "
                f"be read: {listed(self._unread)}"
            )
        return notes

    def adapters(self) -> Iterator[str]:
        return self._below(self.root, 0)

    def _below(self, folder: str, depth: int) -> Iterator[str]:
        self._folders += 1
        names = self._names(folder, depth)
        if names is None:
            return
        files, folders = names
        yield from self._in(folder, files)
        for name in in_order(folders):
            yield from self._below(f"{folder.rstrip('/')}/{name}", depth + 1)

    def _names(self, folder: str, depth: int) -> tuple[list[str], list[str]] | None:
        """Names of the files and of the folders in a folder."""
        if depth > _DEEPEST or self._folders > _MOST:
            self._unread.append(folder)
            return None
        try:
            entries = [each for each in os.scandir(folder) if not each.name.startswith(".")]
        except OSError as error:
            if folder == self.root:
                raise FileError(f"Cannot read the directory {shown(folder)}: {error.strerror}") from error
            self._unread.append(folder)
            return None
        folders = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
        return [each.name for each in entries if each.is_file()], folders

    def _in(self, folder: str, files: Sequence[str]) -> Iterator[str]:
        """The adapters whose weights lie directly in a folder."""
        own = next((name for name in ADAPTER_WEIGHTS if name in files), None)
        weights = [name for name in weights_files(files) if name.lower().endswith(_TENSORS)]
        others = weights if own is None else unread_weights(weights, own)
        if own is None and CONFIG in files and len(others) == 1:
            own, others = others[0], []
        if own is not None:
            yield folder
        stems = {_stem(name) for name in weights if name.endswith(".safetensors")}
        for name in in_order(others):
            if _WHOLE_MODEL.fullmatch(name):
                self._models.append(f"{folder}/{name}")
            elif name.endswith(".safetensors") or _stem(name) not in stems:
                yield f"{folder.rstrip('/')}/{name}"


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
