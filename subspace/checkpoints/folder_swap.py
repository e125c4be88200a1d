"""A directory of new files takes the place of an old one, or is merged into it, in one step.

Where nothing is there, the new directory is renamed. Where a directory is there, a second one is made of hard links, to
the new files and to everything else in the old one, and the two are exchanged by one system call. Where that cannot be
(no such call, no hard links, a mounted directory, a shell's current directory, over a thousand files), the new ones
are moved into the old directory under a name that ends in ``.ready``: from then on they count, and renaming them one by
one can be finished by whoever writes next. Until then a reader is told so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from subspace.checkpoints.sole_writer import is_temporary, remove, temporary
from subspace.errors import FileError
from subspace.text import shown

__all__ = ["entries", "finish", "half_written", "put", "synced"]

_MOST = 1000  # entries that are linked anew; a directory that holds more is not one of results alone
_AT_FDCWD, _EXCHANGE = -100, 2


def put(new: Path, folder: Path, without: Sequence[Path] = ()) -> None:
    """Put a directory of files, which are on disk, in the place of `folder`, or into it.

    What else is in `folder` stays. `new` is gone afterwards, or is left for the caller to remove.

    Parameters
    ----------
    new, folder : paths without links
    without : files of `folder` that are to be gone, in the order in which they may be removed one by one

    Raises
    ------
    OSError : it cannot be; `folder` is unchanged
    """
    _require_fit(new, folder)
    if not folder.exists():
        _sync_all(new)
        new.rename(folder)
    elif not _exchanged(new, folder, frozenset(without)):
        _sync_all(new)
        inside = _moved(new, temporary(folder, inside=True))
        for path in without:
            path.unlink(missing_ok=True)
        _merged(inside, folder)
    for below in {path.parent for path in without} - {folder}:
        with suppress(OSError):
            below.rmdir()  # where that was all that was in it
    synced(folder.parent)


def _sync_all(folder: Path) -> None:
    for root, _, _ in os.walk(folder):
        synced(Path(root))


def _moved(new: Path, inside: Path) -> Path:
    """Move a directory, by a copy where it is mounted elsewhere under the same device."""
    from shutil import move  # 0.01 s of imports

    move(new, inside)
    return inside


def _merged(inside: Path, folder: Path) -> None:
    """Move files into the directory around theirs, all or none unless one cannot be moved after another was."""
    ready, count = inside.with_suffix(".ready"), _count(inside)
    inside.rename(ready)
    synced(folder)
    try:
        finish(folder)
    except OSError:
        if _count(ready) == count:
            remove(ready)
        raise


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _require_fit(new: Path, folder: Path) -> None:
    """Refuse to write through a file or a link to a directory, and over a directory."""
    for root, folders, files in os.walk(new):
        place = folder / os.path.relpath(root, new)
        for name in files:
            if (place / name).is_dir() and not (place / name).is_symlink():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place / name))
        for name in folders:
            if os.path.lexists(place / name) and ((place / name).is_symlink() or not (place / name).is_dir()):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place / name))


def finish(folder: Path) -> None:
    """Finish what a killed writer had begun to put into a directory; its lock must be held."""
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if is_temporary(name) and name.endswith(".ready"):
            try:
                _move_into(folder / name, folder)
            except KeyboardInterrupt:  # not half-way
                _move_into(folder / name, folder)
                raise


def _move_into(ready: Path, folder: Path) -> None:
    if ready.is_symlink():  # which no writer made, and which leads to what is not its own
        remove(ready)
        return
    for root, _, files in os.walk(ready):
        place = folder / os.path.relpath(root, ready)
        place.mkdir(exist_ok=True)
        if place.is_symlink():  # never out of the directory, whoever left this in it
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        for name in files:
            Path(root, name).replace(place / name)
        synced(place)
    remove(ready)


def half_written(folder: str) -> FileError:
    """Return the error of a directory of which some files have yet to be put in place: they are of two results."""
    return FileError(
        f"Half written: {shown(folder, longest=1000)}, since the command that writes it was killed or is still at "
        "work; run that command again"
    )


def entries(folder: Path) -> list[str]:
    """Names in a directory, in their order, without those of writers at work or killed."""
    return sorted(name for name in os.listdir(folder) if not is_temporary(name))


def _exchanged(new: Path, folder: Path, without: frozenset[Path]) -> bool:
    """Whether `folder` could be exchanged for one with the new files and links to its others."""
    if sys.platform != "linux" or not _may_be_exchanged(folder):
        return False
    whole = temporary(folder)
    try:
        _link(new, whole)
        _link(folder, whole, without)
        _exchange(whole, folder)
    except OSError:
        remove(whole)
        return False
    done = {folder / path.relative_to(new) for path in new.rglob("*")} | without
    _bring_latecomers(whole, folder, done)
    remove(whole)
    return True


def _may_be_exchanged(folder: Path) -> bool:
    """Whether a directory is small, all ours, and not where somebody works."""
    status, above = folder.stat(), folder.parent.stat()
    own = status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX
    beside = status.st_dev == above.st_dev and os.access(folder.parent, os.W_OK | os.X_OK)
    home = os.path.expanduser("~")  # noqa: PTH111 - which does not raise without one
    return own and beside and str(folder) != home and _is_small(folder) and not _is_worked_in(folder)


def _is_small(folder: Path) -> bool:
    count = 0
    for root, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        if count > _MOST or os.path.ismount(root) or not os.access(root, os.W_OK | os.X_OK):
            return False
    return True


def _is_worked_in(folder: Path) -> bool:
    """Whether it is the current directory of a process: a shell there would be left in one that is no more."""
    with suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):  # of somebody else, or gone
                place = os.readlink(f"/proc/{name}/cwd")  # noqa: PTH115 - for hundreds of processes
                if place == str(folder) or place.startswith(f"{folder}/"):
                    return True
    return False


def _link(source: Path, target: Path, without: Collection[Path] = ()) -> None:
    """Make a directory of links to all that is in another one, but for what it has already."""
    target.mkdir(exist_ok=True)
    for path in source.iterdir():
        place = target / path.name
        if path.is_dir() and not path.is_symlink():
            _link(path, place, without)
        elif path not in without and not os.path.lexists(place):
            os.link(path, place, follow_symlinks=False)
    if without and os.listdir(source) and not os.listdir(target):
        target.rmdir()  # all that was in it is to be gone
        return
    _copy_mode(source, target)
    synced(target)


def _copy_mode(source: Path, target: Path) -> None:
    """Give a directory the permissions of another one, with its lists of access."""
    if sys.platform == "linux":
        for name in os.listxattr(source):
            with suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
    target.chmod(stat.S_IMODE(source.stat().st_mode))


def _exchange(first: Path, second: Path) -> None:
    """Exchange two directories of one file system (Linux 3.15, glibc 2.28)."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_EXCHANGE)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _bring_latecomers(old: Path, folder: Path, done: Collection[Path]) -> None:
    """Move over what other programs wrote into the old directory while its successor was made."""
    for root, _, files in os.walk(old):
        place = folder / os.path.relpath(root, old)
        for name in files:
            late, there = Path(root, name), place / name
            with suppress(OSError):
                linked = os.path.lexists(there) and os.path.samestat(late.lstat(), there.lstat())
                if not linked and there not in done:
                    place.mkdir(parents=True, exist_ok=True)
                    late.replace(there)


def synced(folder: Path) -> None:
    """Have a directory's names written to disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
