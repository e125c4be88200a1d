"""Leading directions of base weights that earlier runs have found, kept in a directory of the user's.

The same base is asked about again and again, with other adapters and other questions, and the search for its own
directions takes most of the time. An entry is a file of tensors in the format of safetensors behind a digest of them,
which tells damage. It is named by a digest of everything that its numbers depend on: the file of the weight (size, time
of the last change, number on its file system), the place of the weight in it, some of its rows, what was asked, the
device and the version of this package. Reading all of W to name it would cost as much as a pass; the system notes every
change of a file, and a few rows guard against a copy that kept its old time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from subspace import __version__
from subspace.errors import SubspaceError
from subspace.geometry.topk import Leading

__all__ = ["KnownDirections", "directory", "nothing_known", "trimmed"]

_SMALLEST = 2**20  # numbers of a matrix below which a search takes no longer than a look-up
_ENDING = ".directions"
_DIGEST = 32  # bytes
_ROWS = 8  # rows of W that its name depends on
_MOST = 2 * 2**30  # bytes that the directory may take
_OFF = {"", "0", "off", "no", "false"}
_ON: ContextVar[bool] = ContextVar("known_directions", default=True)


@contextmanager
def nothing_known() -> Iterator[None]:
    """Look nothing up and note nothing meanwhile."""
    token = _ON.set(False)
    try:
        yield
    finally:
        _ON.reset(token)


def directory() -> str | None:
    """Where entries are kept: `SUBSPACE_CACHE`, else the user's directory for caches; None where that is "off"."""
    if not _ON.get():
        return None
    chosen = os.environ.get("SUBSPACE_CACHE")
    if chosen is not None:
        return None if chosen.lower() in _OFF else str(Path(chosen, "directions"))
    with suppress(RuntimeError):  # of a user without a home
        return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "subspace", "directions"))
    return None


@dataclass(frozen=True)
class KnownDirections:
    """What is known of the leading directions of matrices; nothing, without a directory.

    Attributes
    ----------
    folder : where the entries are
    device : where the products were computed, which the last digits depend on
    """

    folder: str | None = None
    device: str = "cpu"

    def of(self, W: Any, find: Callable[[], Leading], *, asked: tuple[object, ...]) -> Leading:
        """The directions of a matrix: looked up, or else found and noted.

        Parameters
        ----------
        W : what `find` looks at
        asked : what its result depends on besides W
        """
        path = self._entry(W, asked)
        if path is None:
            return _in_order(find())
        known = _read(path)
        if known is None:
            known = _in_order(find())
            _write(path, known)
        return known

    def _entry(self, W: Any, asked: tuple[object, ...]) -> Path | None:
        identity = getattr(W, "identity", None)
        if self.folder is None or identity is None or W.shape[0] * W.shape[1] < _SMALLEST:
            return None
        import hashlib

        sha = hashlib.sha256(repr((__version__, identity, W.shape, W.dtype, asked, self.device)).encode())
        for start in np.linspace(0, W.shape[0] - 1, _ROWS).astype(int).tolist():
            sha.update(np.ascontiguousarray(W.rows(start, start + 1)).tobytes())
        return Path(self.folder, f"{sha.hexdigest()[:40]}{_ENDING}")


def _in_order(found: Leading) -> Leading:
    """The same with arrays in the order in which they are stored: products of others could differ in the last bit."""
    U, S, V = (np.ascontiguousarray(each) for each in (found.U, found.S, found.V))
    return replace(found, U=U, S=S, V=V)


def _read(path: Path) -> Leading | None:
    """An entry; None where there is none, or a damaged one."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    from safetensors.numpy import load

    try:
        if _digest(content[_DIGEST:]) != content[:_DIGEST]:
            return None
        stored = load(content[_DIGEST:])
        values = {each.name: stored[each.name] for each in fields(Leading)}
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is found again
        return None
    with suppress(OSError):
        os.utime(path)  # the entries that were used last are the last to go
    return Leading(**{name: value if value.ndim else value.item() for name, value in values.items()})


def _write(path: Path, known: Leading) -> None:
    """Note an entry; a directory that cannot be written is no reason to fail."""
    from safetensors.numpy import save

    from subspace.checkpoints.atomic_writing import write_whole

    content = save({each.name: np.asarray(getattr(known, each.name)) for each in fields(Leading)})
    with suppress(SubspaceError, OSError):
        write_whole({path: _digest(content) + content})


def _digest(content: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(content).digest()


def trimmed(folder: str | None, *, most: int = _MOST) -> None:
    """Remove the entries that were used longest ago, as far as the directory is larger than it may be."""
    if folder is None:
        return
    with suppress(OSError):
        entries = [(entry.stat(), entry.path) for entry in os.scandir(folder) if entry.name.endswith(_ENDING)]
        excess = sum(status.st_size for status, _ in entries) - most
        for status, path in sorted(entries, key=lambda each: each[0].st_mtime_ns):
            if excess <= 0:
                break
            with suppress(OSError):
                Path(path).unlink()
                excess -= status.st_size
