"""Damage to the bytes of a valid file, seeded: the same seed gives the same bytes."""

from __future__ import annotations

import random
import struct

__all__ = ["damaged"]

_NUMBERS = (0, 1, 2, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_TEXTS = (
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"null",
    b"[]",
    b"{}",
    b'"\\ud800"',
    b"9" * 4500,
    b"\0",
    b"../x",
    b"(a+)+$",
)


def damaged(content: bytes, seed: int) -> bytes:
    """A valid file with one to eight changes: bytes, numbers, pieces moved, repeated, taken out or cut off."""
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if data:
            rng.choice((_byte, _bit, _number, _text, _cut, _repeat, _remove, _swap))(data, rng)
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """Headers are at either end of a file, so that half of the changes go there."""
    where = rng.randrange(len(data))
    return rng.choice(
        (where, where % 64, len(data) - 1 - where % 64 if len(data) > 64 else where, where % 512)
    ) % len(data)


def _byte(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] = rng.randrange(256)


def _bit(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _number(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    form, limit = rng.choice((("<B", 2**8), ("<H", 2**16), ("<I", 2**32), ("<Q", 2**64)))
    raw = struct.pack(form, rng.choice(_NUMBERS) % limit)
    data[place : place + len(raw)] = raw


def _text(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place : place + rng.choice((0, 1, 4))] = rng.choice(_TEXTS)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _repeat(data: bytearray, rng: random.Random) -> None:
    start, length = _place(data, rng), rng.choice((1, 4, 32, 256))
    data[start:start] = data[start : start + length] * rng.choice((1, 2, 50))


def _remove(data: bytearray, rng: random.Random) -> None:
    start = _place(data, rng)
    del data[start : start + rng.choice((1, 4, 32))]


def _swap(data: bytearray, rng: random.Random) -> None:
    i, j = _place(data, rng), _place(data, rng)
    data[i], data[j] = data[j], data[i]
