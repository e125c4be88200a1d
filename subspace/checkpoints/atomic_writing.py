"""Files written in full or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from subspace.errors import FileError
from subspace.text import listed, shown

__all__ = ["may_replace", "write_whole"]


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write all files: every one is complete on disk before the first is put in place.

    Each is written under a temporary name in its own directory, which is created if needed, and then renamed over
    what was there. A symbolic link is replaced, not followed.

    Raises
    ------
    FileError
        If a directory cannot be created or written, or the disk is full; existing files are left unchanged.
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
        raise _unwritten(error, contents) from error
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink()


def _unwritten(error: OSError, paths: Iterable[Path]) -> FileError:
    where = listed(paths)
    if error.errno == errno.ENOSPC:
        return FileError(f"No space left on device while writing {where}; free some space and try again")
    in_the_way = error.errno in (errno.EEXIST, errno.ENOTDIR)
    reason = "a part of the path is a file, not a directory" if in_the_way else shown(error.strerror or error)
    return FileError(f"Cannot write {where}: {reason}; check the path and its permissions")


def may_replace(path: Path, starts: tuple[bytes, ...]) -> None:
    """Check that an output replaces nothing, or a file that begins like one of its own kind.

    Parameters
    ----------
    starts : first bytes of files of the output's kind; an empty file may always be replaced

    Raises
    ------
    FileError
        If something else is there: a user's file of the same name is never overwritten.
    """
    if not os.path.lexists(path) or path.is_symlink():
        return
    if not path.is_file():
        raise FileError(
            f"Cannot write {shown(path, longest=1000)}: it is not a regular file; choose another name"
        )
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise FileError(
            f"Cannot replace {shown(path, longest=1000)}: {shown(error.strerror)}; choose another name"
        ) from error
    if start and not start.startswith(starts):
        raise FileError(
            f"Cannot replace {shown(path, longest=1000)}: it is a file of another kind; "
            "choose another name or remove it"
        )
