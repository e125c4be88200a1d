"""Where an output may go: never over an input, and over an earlier output of its kind only on request."""

# ruff: noqa: PTH110, PTH112, PTH121 - os.path returns False where pathlib raises, on a loop or without permission

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from subspace.checkpoints.folder_swap import entries
from subspace.errors import FileError
from subspace.text import shown

__all__ = ["require_free"]


def require_free(
    out: Path, files: Iterable[Path], *, inputs: Sequence[Path], folder: bool, overwrite: bool
) -> None:
    """Check that an output replaces nothing, or with `overwrite` an earlier output of its kind.

    Parameters
    ----------
    out : the directory or the file that the user named
    files : every file that will be written
    inputs : files and directories that were read
    folder : whether `out` is to be a directory
    overwrite : whether an output of the same kind may be replaced

    Raises
    ------
    FileError : `out` is an input, lies in the directory of one, exists, or is of another kind
    """
    try:
        for path in inputs:
            _require_apart(out, files, path, folder)
        if os.path.lexists(out):
            _require_own_kind(out, folder)
            if not overwrite and not (folder and not entries(out)):
                _refuse(out, "exists already", "choose another name, or give `overwrite`")
    except OSError as error:
        if isinstance(error, FileError):
            raise
        _refuse(out, f"cannot be examined ({shown(error.strerror)})", "check the path")
    except ValueError:  # a NUL in the path
        _refuse(out, "is not a name that the system allows")


def _require_apart(out: Path, files: Iterable[Path], source: Path, folder: bool) -> None:
    """Not the input under any name, not the directory that holds it, and not a file within an input directory."""
    # realpath, and not resolve, which raises another error where links form a loop
    real, place = Path(os.path.realpath(out)), Path(os.path.realpath(source))
    inside = os.path.isdir(place) and real.parent == place
    if real == place or (folder and real == place.parent) or inside or _any_same(files, source):
        _refuse(out, "is the input, or lies in its directory")


def _any_same(files: Iterable[Path], source: Path) -> bool:
    """Whether a file to be written is the input under another name; what cannot be looked at counts as missing."""
    with suppress(OSError):
        return any(os.path.samefile(path, source) for path in files if os.path.exists(path))
    return False


def _require_own_kind(out: Path, folder: bool) -> None:
    if folder and not out.is_dir():
        _refuse(out, "is a file, where a directory is to be written")
    if folder and entries(out) and not (out / "adapter_config.json").is_file():
        _refuse(out, "is a directory that holds something other than an adapter")
    if not folder and not out.is_file():
        _refuse(out, "is not a regular file")
    if not folder and not _is_weights(out):
        _refuse(out, "is a file of another kind, not of weights")


def _is_weights(path: Path) -> bool:
    """Whether a file begins like a safetensors or a torch file, or is empty."""
    with path.open("rb") as stream:
        start = stream.read(9)
    return not start or start[:2] == b"PK" or start[8:9] == b"{"


def _refuse(out: Path, fact: str, cure: str = "choose another name") -> NoReturn:
    raise FileError(f"Cannot write {shown(out, longest=1000)}: it {fact}; {cure}")
