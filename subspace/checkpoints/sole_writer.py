"""One writer of a file or directory at a time, and the names of what it has not put in place yet.

A writer of ``out`` holds a lock on ``.subspace-<digest of its name>.lock`` next to it, and works under names that begin
alike. The lock ends with its process, however that ends: whoever has it next removes what a killed one left. Where the
parent of a directory cannot be written, or is on another file system, these files are inside it.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from subspace.checkpoints.lock_file import holder, taken
from subspace.errors import FileError
from subspace.text import shown

__all__ = ["is_temporary", "real", "remove", "sole_writer", "temporary", "tidy"]

_PATIENCE = 30.0  # seconds to wait for another writer; putting a result in place takes a fraction of one
_POLL = 0.02
_INSIDE = ".subspace-here"
_TEMPORARY = re.compile(r"(\.subspace-(?:here|[0-9a-f]{12}))(?:\.lock|-[0-9a-f]{12}\.(?:tmp|ready))")
_holders: dict[Path, int] = {}  # lock file -> the thread of this process that holds it


def real(path: Path) -> Path:
    """The path without links in its directories; a link to a file is itself what is replaced."""
    # realpath, and not resolve, which raises another error where links form a loop
    if path.is_dir() or path.name == "..":
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def is_temporary(name: str) -> bool:
    """Whether a file or directory of this name is of a writer at work, or of one that was killed."""
    return _TEMPORARY.fullmatch(name) is not None


def temporary(target: Path, *, inside: bool = False) -> Path:
    """A new name under which a target can be prepared; `inside` it, where it must be on the same file system."""
    stem = target / _INSIDE if inside else _stem(target)
    return stem.with_name(f"{stem.name}-{secrets.token_hex(6)}.tmp")


def _stem(target: Path) -> Path:
    """Beginning of all names that belong to a target."""
    parent = target.parent
    if target.is_dir() and not target.is_symlink():
        apart = target.stat().st_dev != parent.stat().st_dev
        if apart or target == parent or not os.access(parent, os.W_OK | os.X_OK):
            return target / _INSIDE
    return parent / f".subspace-{sha256(os.fsencode(target.name)).hexdigest()[:12]}"


@contextmanager
def sole_writer(path: Path, *, wait: float = _PATIENCE, within: bool = True) -> Iterator[None]:
    """Keep other writers from a file or directory; what killed ones left of it is removed, before and after.

    Directories above it are made where they are missing, and removed again if nothing was put into them.

    Parameters
    ----------
    wait : seconds to wait for another writer
    within : whether this thread may hold the lock already, and does with this the next step of its work

    Raises
    ------
    FileError : another process is still writing it
    OSError : its directory cannot be made or written
    """
    target, made = real(path), list[Path]()
    try:
        stem = _stem(target)
        lock = stem.with_name(f"{stem.name}.lock")
        if within and _holders.get(lock) == threading.get_ident():
            yield
            return
        release = _waited_for(lock, path, wait, made)
        _holders[lock] = threading.get_ident()
        try:
            _remove_unfinished(stem)
            tidy(target)
            yield
        finally:
            _remove_unfinished(stem)
            tidy(target)
            del _holders[lock]
            release()
    finally:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()  # which fails, as it should, if something was put into it


def _waited_for(lock: Path, path: Path, wait: float, made: list[Path]) -> Callable[[], None]:
    deadline = time.monotonic() + wait
    while True:
        made += _missing_folders(lock.parent)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another writer, which failed, has removed the directory again
            release = taken(lock)
            if release is not None:
                return release
        if time.monotonic() >= deadline:
            raise _busy(lock, path)
        time.sleep(_POLL)


def _missing_folders(folder: Path) -> list[Path]:
    """Directories that have yet to be made, the outermost first."""
    return [each for each in (*reversed(folder.parents), folder) if not os.path.lexists(each)]


def _busy(lock: Path, path: Path) -> FileError:
    number = holder(lock)
    doing = "using the directory" if path.is_dir() else "writing"
    who = "it" if number is None else f"process {number}"
    return FileError(
        f"Another process is {doing} {shown(path, longest=1000)}; wait for {who}, or choose another name"
    )


def tidy(folder: Path) -> None:
    """Remove from a directory what killed writers left in it, and nothing of one that is still at work."""
    with suppress(OSError):
        stems = {match[1] for name in os.listdir(folder) if (match := _TEMPORARY.fullmatch(name))}
        for stem in stems:
            lock = folder / f"{stem}.lock"
            release = None if lock in _holders else taken(lock)
            if release is not None:
                _remove_unfinished(folder / stem)
                release()


def _remove_unfinished(stem: Path) -> None:
    with suppress(OSError):
        for name in os.listdir(stem.parent):
            if name.startswith(f"{stem.name}-") and name.endswith(".tmp"):
                remove(stem.parent / name)


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it, as far as the system lets us."""
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        for below in path.iterdir():
            remove(below)
        path.rmdir()
