"""Files written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from subspace.errors import FileError
from subspace.text import shown

__all__ = ["may_replace", "write_whole"]


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Put every file in place, or none of them: all are complete on disk before the first is renamed.

    Each is written under a temporary name in its own directory, which is made if need be, and renamed over what was
    there. A symbolic link is replaced, not followed.

    Raises
    ------
    FileError
        If a directory cannot be made or written, or the disk is full; what was there is left as it was.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = path.parent / f".subspace-{secrets.token_hex(6)}.tmp"
            with staged[path].open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for path, temporary in staged.items():
            temporary.replace(path)
    except OSError as error:
        raise FileError(
            f"an output must be written in full: got {shown(error.strerror or error)}, in "
            f"{shown(', '.join(map(str, contents)), longest=1000)}; check the directory and the free space"
        ) from error
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink()


def may_replace(path: Path, starts: tuple[bytes, ...]) -> None:
    """Check that an output takes the place of nothing, or of a file that begins as one of its kind does.

    Parameters
    ----------
    starts : how files of the output's kind begin; an empty file may always be replaced

    Raises
    ------
    FileError
        If something else is there: a user's file is never overwritten by ours of the same name.
    """
    if not os.path.lexists(path) or path.is_symlink():
        return
    if not path.is_file():
        raise FileError(
            f"an output must be a regular file: got {shown(path, longest=1000)}, which is none; choose another name"
        )
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise FileError(
            f"an output must be a file that can be replaced: got {shown(error.strerror)}, in "
            f"{shown(path, longest=1000)}; choose another name"
        ) from error
    if start and not start.startswith(starts):
        raise FileError(
            f"an output must not replace a file of another kind: got {shown(path, longest=1000)}; "
            "choose another name or remove it"
        )
