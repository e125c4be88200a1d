"""What the manifest knows of one adapter's file: where each module's canonical form lies in it, and what it is."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

__all__ = ["Entry", "StoredModule", "checksum", "digest", "key_of"]

_KEY_LENGTH = 40
LAYOUT = 1  # of the files: raised when what they hold changes, so that keys of older files are others


def checksum(*values: Any) -> int:
    """A number that a change of any value changes, by CRC-32 of their text: against damage, not against intent."""
    return zlib.crc32(json.dumps(values, ensure_ascii=True).encode("ascii"))


def digest(value: Any) -> str:
    """A name for a value that JSON can hold, of 40 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(text.encode("ascii")).hexdigest()[:_KEY_LENGTH]


@dataclass(frozen=True)
class StoredModule:
    """One module of an adapter: its facts, and where its form lies in the file.

    Attributes
    ----------
    stored : its name in the adapter's own file
    kind : of the layer: "linear", "conv" or "embedding"
    r, d_in, d_out : declared rank and dimensions of delta_W
    k_in, k_out, k : directions of `right` and of `left`, and the numerical rank of delta_W
    factored : whether there are `a` and `b`
    scale : multiplier of ``B @ A``, None where it is unknown
    flags : of the update
    small, large : first byte of S, a and b (float64), and of right and left (float32), behind the file's header
    content : CRC-32 of these bytes
    """

    stored: str
    kind: str
    r: int
    d_in: int
    d_out: int
    k_in: int
    k_out: int
    k: int
    factored: bool
    scale: float | None
    flags: tuple[str, ...]
    small: int = 0
    large: int = 0
    content: int = 0

    @property
    def usable(self) -> bool:
        """Whether delta_W has directions: one that is untrained or not finite has none."""
        return self.k > 0

    @property
    def small_bytes(self) -> int:
        """Bytes of S, a and b."""
        return 8 * (self.k + (self.r * (self.k_in + self.k_out) if self.factored else 0))

    @property
    def large_bytes(self) -> int:
        """Bytes of right and left."""
        return 4 * (self.k_in * self.d_in + self.k_out * self.d_out)

    def row(self) -> tuple[Any, ...]:
        """The values of the manifest's row, with their checksum last."""
        values = tuple(
            json.dumps(value)
            if isinstance(value, tuple)
            else int(value)
            if isinstance(value, bool)
            else value
            for value in vars(self).values()
        )
        return (*values, checksum(*values))

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> StoredModule:
        """The module of a row; ValueError if the row is not as it was written."""
        *values, check = row
        if check != checksum(*values):
            raise ValueError("a row of the manifest is damaged")
        facts = dict(zip(cls.__dataclass_fields__, values, strict=True))
        return cls.of(facts | {"flags": json.loads(facts["flags"]), "factored": bool(facts["factored"])})

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> StoredModule:
        """The module of facts from a file; ValueError if they cannot be a module's."""
        try:
            found = cls(**{**facts, "flags": tuple(facts["flags"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"facts of a module that are not complete: {error}") from None
        if not found.is_sound():
            raise ValueError("facts of a module that contradict each other")
        return found

    def is_sound(self) -> bool:
        """Whether the numbers can be those of a module."""
        counts = (self.r, self.d_in, self.d_out, self.k_in, self.k_out, self.k, self.small, self.large)
        texts = (self.stored, self.kind, *self.flags)
        return (
            all(type(n) is int and 0 <= n < 2**40 for n in counts)
            and self.k <= min(self.k_in, self.k_out)
            and self.k_in <= self.d_in
            and self.k_out <= self.d_out
            and all(isinstance(text, str) for text in texts)
            and (self.scale is None or (isinstance(self.scale, float) and math.isfinite(self.scale)))
        )


@dataclass(frozen=True)
class Entry:
    """One adapter's file in the index.

    Attributes
    ----------
    key : digest of the adapter's bytes and of how they were read, which names the file
    sha256 : of the adapter's own file; None of tensors in memory
    size, begin : bytes of the file in the index, and the first one behind its header
    format : of the adapter, such as "peft"
    base : name of its base model, where its configuration says it
    modules : in the order of the file
    """

    key: str
    sha256: str | None
    size: int
    begin: int
    format: str
    base: str | None
    modules: tuple[StoredModule, ...]

    def row(self) -> tuple[Any, ...]:
        """The values of the manifest's row, with their checksum last."""
        values = (self.key, self.sha256, self.size, self.begin, self.format, self.base)
        return (*values, checksum(*values))


def key_of(identity: str, reading: Mapping[str, Any], modules: Sequence[Any]) -> str:
    """Name of the file of an adapter.

    Parameters
    ----------
    identity : sha256 of the adapter's file, or of its numbers where they are in memory
    reading : options that it was read with
    modules : name, kind, rank, dimensions, rows and scale of each module, as they were read
    """
    return digest([LAYOUT, identity, dict(reading), list(modules)])
