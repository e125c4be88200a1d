"""What a format is: a name, a test of a file's keys, and a reading of it.

A format module in `subspace.adapters.formats` declares one object ``FORMAT`` and is found by being there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from subspace.adapters.update import Factor, Update
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters.base.weights import BaseWeights
    from subspace.checkpoints import TensorFile

__all__ = ["Format", "Ignored", "Note", "Reading", "Role", "Source", "scale_unknown"]


class Role(str, Enum):
    """What a tensor is that belongs to no update: whether a copy of the adapter has to have it."""

    TRAINED = "trained"  # with the adapter: a bias, a module saved in full
    COPY = "copy"  # of what the file or the base model holds already, or scratch of a trainer
    BASE = "base"  # a weight of the base model
    OTHER_ADAPTER = "other_adapter"


@dataclass(frozen=True)
class Ignored:
    """A tensor of the file that is known and not part of any update, with why, and what it is."""

    key: str
    why: str
    role: Role = Role.TRAINED


class Note(str):
    """A sentence that the user should read; `flag` says which flag speaks of the same, if one does."""

    flag: Flag | None

    def __new__(cls, text: str, flag: Flag | None = None) -> Note:
        """Make a note of a text."""
        note = str.__new__(cls, text)
        note.flag = flag
        return note


def scale_unknown(why: str) -> Note:
    """The note that a file does not say the scale of its updates."""
    return Note(f"The scale is unknown: {why}", Flag.SCALE_UNKNOWN)


@dataclass(frozen=True)
class Source:
    """What a format is given: the tensors, the configuration beside them (None without one), the user's wishes.

    `scales` and `groups` are what a model in memory says of its layers, by module: the multiplier of B @ A, and which
    groups of a fused layer are adapted. `base` is what the user gave as base weights, for updates that rescale them.
    """

    tensors: TensorFile
    config: Mapping[str, Any] | None = None
    config_path: str | None = None
    adapter_name: str | None = None
    enabled: tuple[bool, ...] | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    base: BaseWeights | None = None

    @property
    def path(self) -> str:
        """The file, as it may stand in a message."""
        return shown(self.tensors.path, longest=1000)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self.tensors.layout[key].shape

    def factor(self, key: str) -> Factor:
        """A tensor as a matrix (dimensions after the first flattened), read when asked for.

        Raises
        ------
        ShapeError : fewer than two dimensions, or one of them empty
        """
        info = self.tensors.layout[key]
        if len(info.shape) < 2 or 0 in info.shape:
            raise ShapeError(
                f"a factor must be a matrix that is not empty: got shape {list(info.shape)}, "
                f"in {shown(key)} of {self.path}"
            )
        if not info.dtype.startswith(("float", "bfloat")):
            raise ShapeError(
                f"a factor must be of a floating point type: got {shown(info.dtype)}, in {shown(key)} of "
                f"{self.path}; dequantise it first"
            )
        columns = 1
        for size in info.shape[1:]:
            columns *= size
        shape = (info.shape[0], columns)
        return Factor(
            shape,
            info.dtype,
            load=lambda: self.tensors.read(key).reshape(shape),
            part=lambda start, stop: self.tensors.stored(key, shape).rows(start, stop),
            tensor_shape=info.shape,
        )


@dataclass(frozen=True)
class Reading:
    """A file read as one format: its updates and an account of every other tensor."""

    updates: tuple[Update, ...]
    ignored: tuple[Ignored, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # a `Note` where a flag speaks of the same


@dataclass(frozen=True)
class Format:
    """One file format of adapters.

    Attributes
    ----------
    name : as shown to the user
    about : one line: who writes it, and its scale rule with the writer's source
    claims : whether a file is of this format, from names, shapes and configuration only; never raises
    read : the reading; raises `FormatError`, `ShapeError` with one clear line
    """

    name: str
    about: str
    claims: Callable[[Source], bool]
    read: Callable[[Source], Reading]


def refuse(source: Source, what: str) -> FormatError:
    """The error that a file is known and is not an adapter that can be read."""
    return FormatError(
        f"an adapter must hold low-rank updates: {source.path} is {what}; give a file of pairs A and B"
    )
