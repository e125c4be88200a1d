"""Another text that most machines have: the C headers that come with Python or with NumPy."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from subspace.checkpoints.atomic_writing import write_whole

__all__ = ["NAME", "found", "text", "write"]

NAME = "c-headers.txt"
_MOST, _LEAST = 500_000, 50_000  # bytes: about as long as Python's help topics; enough to learn from


def found() -> bool:
    """Return whether there are enough of them."""
    return len(text()) >= _LEAST


def write(folder: Path) -> Path:
    """Write them into a folder as one text; return its path.

    Raises
    ------
    FileError : it cannot be written
    """
    path = folder / NAME
    if not path.exists():
        write_whole({path: text()})
    return path


def text() -> bytes:
    """Return them as one text."""
    whole = b""
    for path in _headers():
        with suppress(OSError):
            whole += path.read_bytes().decode("utf-8", "replace").encode() + b"\n"
        if len(whole) >= _MOST:
            break
    return whole


def _headers() -> Iterator[Path]:
    """The headers in the order of their names, Python's first."""
    import numpy as np

    for folder in (sysconfig.get_paths()["include"], np.get_include()):
        yield from sorted(path for path in Path(folder).rglob("*.h") if path.is_file())
