"""Damage inside a container: the lengths, tables and checksums around the damaged part are made to fit again."""

from __future__ import annotations

import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO

from mutation import damaged

__all__ = ["changed_inside", "damage"]

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)


def changed_inside(content: bytes, change: Callable[[bytes], bytes], rng: random.Random) -> bytes:
    """A file of which one part is changed: a member of a zip archive, the header of safetensors or npy, else all of it.

    Parameters
    ----------
    change : bytes of the part -> other bytes
    """
    if content[:2] == b"PK":
        return _in_zip(content, change, rng)
    if content[:6] == b"\x93NUMPY":
        return _in_npy(content, change)
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content):
        return _in_safetensors(content, change)
    return change(content)


def damage(content: bytes, seed: int) -> bytes:
    """Seeded damage to a file, every other time inside its container."""
    if seed % 2:
        return damaged(content, seed)
    return changed_inside(content, lambda part: damaged(part, seed), random.Random(seed))


def _in_safetensors(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    stop = 8 + int.from_bytes(content[:8], "little")
    header = change(content[8:stop])
    return struct.pack("<Q", len(header)) + header + content[stop:]


def _in_npy(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    length = 2 if content[6:7] == b"\1" else 4
    start = 8 + length
    stop = start + int.from_bytes(content[8:start], "little")
    header = change(content[start:stop])[: 256**length - 1]
    return content[:8] + len(header).to_bytes(length, "little") + header + content[stop:]


def _in_zip(content: bytes, change: Callable[[bytes], bytes], rng: random.Random) -> bytes:
    try:
        with zipfile.ZipFile(BytesIO(content)) as old:
            members = [(entry, old.read(entry)) for entry in old.infolist()]
    except _DAMAGED:
        return change(content)
    if not members:
        return change(content)
    # the first member of a torch file is its pickle, where most can go wrong
    chosen = rng.choice((0, rng.randrange(len(members))))
    file = BytesIO()
    try:
        with zipfile.ZipFile(file, "w") as new:
            for n, (entry, inner) in enumerate(members):
                part = inner
                if n == chosen:
                    part = changed_inside(inner, change, rng) if inner[:2] != b"PK" else change(inner)
                packed = rng.random() < 0.1
                new.writestr(entry.filename, part, zipfile.ZIP_DEFLATED if packed else entry.compress_type)
    except _DAMAGED:
        return change(content)
    return file.getvalue()
