"""Where an output may go: never over an input, over what is there only if asked to and if that is of its own kind."""

# ruff: noqa: PTH110, PTH112, PTH121 - os.path says no where pathlib raises, on a loop or without permission

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from subspace.errors import FileError
from subspace.text import shown

__all__ = ["require_free"]


def require_free(
    out: Path, files: Iterable[Path], *, inputs: Sequence[Path], folder: bool, overwrite: bool
) -> None:
    """Check that an output takes the place of nothing, or with `overwrite` of an earlier one of its kind.

    Parameters
    ----------
    out : the directory or the file that the user named
    files : every file that will be written
    inputs : files and directories that were read
    folder : whether `out` is to be a directory
    overwrite : whether an output of the same kind may be replaced

    Raises
    ------
    FileError : `out` is an input, leads into one, exists, or is of another kind
    """
    try:
        for path in inputs:
            _require_apart(out, files, path, folder)
        if os.path.lexists(out):
            _require_own_kind(out, folder)
            if not overwrite and not (folder and not any(out.iterdir())):
                _refuse("must not exist", out, "choose another name, or --overwrite")
    except OSError as error:
        if isinstance(error, FileError):
            raise
        _refuse(f"must be a place that can be looked at ({shown(error.strerror)})", out, "check the path")
    except ValueError:  # a NUL in the path
        _refuse("must have a name that the system allows", out, "choose another name")


def _require_apart(out: Path, files: Iterable[Path], source: Path, folder: bool) -> None:
    """Not the input by any name; not a directory that the input is in, nor beside the files of an input directory."""
    # realpath, and not resolve, which raises another error where links form a loop
    real, place = Path(os.path.realpath(out)), Path(os.path.realpath(source))
    inside = os.path.isdir(place) and real.parent == place
    if real == place or (folder and real == place.parent) or inside or _any_same(files, source):
        _refuse("must not be the input or beside it in its directory", out, "choose another name")


def _any_same(files: Iterable[Path], source: Path) -> bool:
    """Whether a file to be written is the input under another name; what cannot be looked at is not there."""
    with suppress(OSError):
        return any(os.path.samefile(path, source) for path in files if os.path.exists(path))
    return False


def _require_own_kind(out: Path, folder: bool) -> None:
    if folder and not out.is_dir():
        _refuse("must be a directory: got a file", out, "choose another name")
    if folder and any(out.iterdir()) and not (out / "adapter_config.json").is_file():
        _refuse("must be an empty directory or an adapter's: got another", out, "choose another name")
    if not folder and not out.is_file():
        _refuse("must be a regular file: got none", out, "choose another name")
    if not folder and not _is_weights(out):
        _refuse("must not replace a file of another kind", out, "choose another name")


def _is_weights(path: Path) -> bool:
    """Whether a file begins as a safetensors or a torch file does, or is empty."""
    with path.open("rb") as stream:
        start = stream.read(9)
    return not start or start[:2] == b"PK" or start[8:9] == b"{"


def _refuse(what: str, out: Path, cure: str) -> NoReturn:
    raise FileError(f"an output {what}: got {shown(out, longest=1000)}; {cure}")
