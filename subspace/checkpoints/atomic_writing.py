"""Files put in place in one step: a kill at any point leaves what was there, or all that is new.

Everything that the package writes goes through `write_whole`: one file is renamed over the old one; the files of a
directory come with it, see `folder_swap`. Files of other programs in that directory stay.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from subspace.checkpoints import folder_swap
from subspace.checkpoints.folder_swap import synced
from subspace.checkpoints.sole_writer import real, remove, sole_writer, temporary
from subspace.errors import FileError
from subspace.text import listed, shown

__all__ = ["may_replace", "one_writer", "write_whole"]

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def write_whole(contents: Mapping[Path, bytes], *, without: Sequence[Path] = ()) -> None:
    """Write all files in one step, once every one is complete on disk; directories are made where they are missing.

    One step is what lies in one directory and below it. Files elsewhere, or below a link or a mounted directory, take
    a step for each directory. A symbolic link at the end of a path is replaced, not followed.

    Parameters
    ----------
    without : files in the same directory that are gone after the step

    Raises
    ------
    FileError
        If a directory cannot be created or written, or the disk is full, or another process is still writing there.
        What was there is unchanged, and nothing else is left behind.
    """
    try:
        with ExitStack() as stack:
            with _interruptible(contents):
                for folder, files in _steps(contents).items():
                    gone = [path for path in map(real, without) if folder in path.parents]
                    stack.enter_context(_staged(folder, files, gone))
            stack.close()
    except OSError as error:
        raise error if isinstance(error, FileError) else _unwritten(error, contents) from error


@contextmanager
def _interruptible(paths: Iterable[Path]) -> Iterator[None]:
    """Let a Ctrl-C say that nothing has been put in place yet."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"nothing was written to {listed(paths)}") from None


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Keep other writers from a file or directory, from checking that it may be replaced until it is.

    Raises
    ------
    FileError : another process is still writing it, or its directory cannot be made or written
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(path))
        except OSError as error:
            raise error if isinstance(error, FileError) else _unwritten(error, [path]) from error
        yield


def _steps(contents: Mapping[Path, bytes]) -> dict[Path, dict[Path, bytes]]:
    """Files by the outermost directory that holds them, as paths without links."""
    steps: dict[Path, dict[Path, bytes]] = {}
    places = {Path(os.path.realpath(path.parent)) / path.name: content for path, content in contents.items()}
    for path in sorted(places, key=lambda path: len(path.parts)):
        above = (folder for folder in steps if folder in path.parents and _same_system(folder, path.parent))
        steps.setdefault(next(above, path.parent), {})[path] = places[path]
    return steps


def _same_system(folder: Path, below: Path) -> bool:
    """Whether a directory, if it is there, is on the file system of one above it."""
    return not (below.exists() and folder.exists()) or below.stat().st_dev == folder.stat().st_dev


@contextmanager
def _staged(folder: Path, files: Mapping[Path, bytes], without: Sequence[Path]) -> Iterator[None]:
    """Write files next to their place, and put them in it at the end, unless there was an error."""
    (first, content), *others = files.items()
    single = not others and not without and first.parent == folder
    target = first if single else folder
    with sole_writer(target):
        if not single:
            folder_swap.finish(folder)
        new = temporary(target)
        try:
            if single:
                _write(new, content)
            else:
                _write_all(new, {path.relative_to(folder): content for path, content in files.items()})
            yield
            if single:
                new.replace(first)
                synced(folder)
            else:
                folder_swap.put(new, folder, without)
        finally:
            remove(new)


def _write_all(new: Path, files: Mapping[Path, bytes]) -> None:
    for folder in sorted({new / parent for path in files for parent in path.parents}):
        folder.mkdir()
    for path, content in files.items():
        _write(new / path, content)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _unwritten(error: OSError, paths: Iterable[Path]) -> FileError:
    where = listed(paths)
    if error.errno in _FULL:
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
