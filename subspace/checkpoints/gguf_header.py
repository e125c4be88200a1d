"""The header of a GGUF file: its metadata, and which tensor of which type begins where.

Arrays of the metadata, such as the vocabulary of a language model, are stepped over and not kept.

References
----------
ggml-org/ggml, docs/gguf.md (versions 2 and 3).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from subspace.checkpoints.budget import ENTRIES, METADATA
from subspace.checkpoints.shapes import is_possible

if TYPE_CHECKING:
    from subspace.checkpoints.held_file import HeldFile

__all__ = ["GgufHeader", "GgufTensor", "gguf_header"]

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = {2, 3}
_MOST_DIMENSIONS = 4
_ALIGNMENT = "general.alignment"
_LONGEST_TEXT = 2**16  # of a name, or of a text that is kept
_WINDOW = 2**20


class GgufTensor(NamedTuple):
    """A tensor: its shape with the slowest dimension first, number of its type, and first byte after the header."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufHeader(NamedTuple):
    """Order of bytes ("<" or ">"), single values of the metadata, tensors by name, and first byte of their data."""

    order: Literal["<", ">"]
    metadata: dict[str, str | int | float]
    tensors: dict[str, GgufTensor]
    start: int


def gguf_header(file: HeldFile) -> GgufHeader:
    """The header of a GGUF file.

    Raises
    ------
    ValueError
        If it is damaged; the text says how.
    UnsafeFileError
        If it has more values than a file of its size can need.
    """
    version = int.from_bytes(file.read(4, 4), "little")
    # a small number in the other order has zeros in its lower half
    order: Literal["<", ">"] = ">" if version and version & 0xFFFF == 0 else "<"
    reader = _Reader(file, order, 4)
    version = reader.number("I")
    if version not in _VERSIONS:
        raise ValueError(f"the unknown version {version}")
    count, pairs = reader.number("Q"), reader.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        file.budget.spend(METADATA)
        name = reader.text()
        if name in metadata:
            raise ValueError(f"the name {name} twice")
        metadata[name] = reader.value(reader.number("I"))
    tensors: dict[str, GgufTensor] = {}
    for _ in range(count):
        file.budget.spend(ENTRIES)
        name = reader.text()
        if name in tensors:
            raise ValueError(f"two tensors with the name {name}")
        tensors[name] = _tensor(reader)
    alignment = metadata.get(_ALIGNMENT, 32)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise ValueError("an alignment that is not a power of two")
    kept = {name: value for name, value in metadata.items() if value is not None}
    return GgufHeader(order, kept, tensors, -(-reader.position // alignment) * alignment)


def _tensor(reader: _Reader) -> GgufTensor:
    dimensions = reader.number("I")
    if dimensions > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {dimensions} dimensions")
    # the fastest dimension comes first
    shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]
    if not is_possible(shape):
        raise ValueError(f"a tensor of shape {shape}")
    return GgufTensor(shape, reader.number("I"), reader.number("Q"))


class _Reader:
    """Numbers and texts of a file, one after the other, from a window of its bytes."""

    def __init__(self, file: HeldFile, order: str, position: int) -> None:
        self.position = position
        self._file = file
        self._order = order
        self._begin = position
        self._window = b""

    def number(self, code: str) -> Any:
        size = struct.calcsize(f"={code}")
        begin = self._at(size)
        (number,) = struct.unpack_from(f"{self._order}{code}", self._window, begin)
        self.position += size
        return number

    def text(self) -> str:
        length = self.number("Q")
        if length > _LONGEST_TEXT:
            raise ValueError(f"a name of {length} bytes")
        begin = self._at(length)
        self.position += length
        return self._window[begin : begin + length].decode("utf-8")

    def value(self, kind: int) -> str | int | float | None:
        """A number, or a text that is not too long; None for whatever else there is."""
        if kind in _NUMBERS:
            number: int | float = self.number(_NUMBERS[kind])
            return number
        if kind == _ARRAY:
            self._skip_array(self.number("I"), self.number("Q"))
            return None
        if kind != _STRING:
            raise ValueError(f"a value of the unknown type {kind}")
        length = self.number("Q")
        self.position -= 8
        if length <= _LONGEST_TEXT:
            return self.text()
        self._skip(8 + length)
        return None

    def _skip_array(self, kind: int, length: int) -> None:
        if kind in _NUMBERS:
            self._skip(length * struct.calcsize(f"={_NUMBERS[kind]}"))
        elif kind == _STRING:
            # each takes the eight bytes of its length at least
            if 8 * length > self._file.size:
                raise ValueError("a length beyond the end of the file")
            self._file.budget.spend(METADATA, length)
            for _ in range(length):
                self._skip(self.number("Q"))
        else:
            raise ValueError(f"an array of values of the unknown type {kind}")

    def _skip(self, count: int) -> None:
        self.position += count
        if self.position > self._file.size:
            raise ValueError("a length beyond the end of the file")

    def _at(self, count: int) -> int:
        """Place of the next bytes in the window, which is moved on where it has to be."""
        begin = self.position - self._begin
        if begin + count > len(self._window):
            if self.position + count > self._file.size:
                raise ValueError("a length beyond the end of the file")
            self._window = self._file.read(self.position, max(count, _WINDOW))
            self._begin, begin = self.position, 0
        return begin
