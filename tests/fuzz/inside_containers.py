"""Damage inside a container: the lengths, tables and checksums around the damaged part are made to fit again."""

from __future__ import annotations

import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO

from mutation import damaged

__all__ = ["changed_inside", "damage"]

_LARGEST = 2**22  # bytes of the members of an archive that is unpacked


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of two members with one name
            return _repacked(content, change, rng)
    except Exception:  # noqa: BLE001 - zipfile raises ten kinds of them on what an earlier change has damaged
        return change(content)


def _repacked(content: bytes, change: Callable[[bytes], bytes], rng: random.Random) -> bytes:
    with zipfile.ZipFile(BytesIO(content)) as old:
        if sum(entry.file_size for entry in old.infolist()) > _LARGEST:
            return change(content)
        members = [(entry, old.read(entry)) for entry in old.infolist()]
    # the first member of a torch file is its pickle, where most can go wrong
    chosen = rng.choice((0, rng.randrange(len(members))))
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for n, (entry, inner) in enumerate(members):
            part = inner
            if n == chosen:
                part = change(inner) if inner[:2] == b"PK" else changed_inside(inner, change, rng)
            packed = rng.random() < 0.1
            new.writestr(entry.filename, part, zipfile.ZIP_DEFLATED if packed else entry.compress_type)
    return file.getvalue()
