"""What a format is: a name, a test whether a file is of it, and a function that reads the file.

A module in `subspace.adapters.formats` declares one object ``FORMAT`` and is found by being there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.adapters.base.own import NO_BASE, OwnBase
from subspace.adapters.place import place
from subspace.adapters.update import Factor, Update
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters.base.weights import BaseWeights
    from subspace.checkpoints import TensorFile

__all__ = ["LAYOUTS", "Format", "Ignored", "Note", "Parameter", "Reading", "Role", "Source", "scale_unknown"]

# how factors may be stored: BA is A (r, d_in) and B (d_out, r); At and Bt are the transposed ones, AB is both
LAYOUTS = ("BA", "AB", "BAt", "BtA")


class Role(str, Enum):
    """What a tensor is that belongs to no update, which decides whether a copy of the adapter needs it."""

    TRAINED = "trained"  # trained with the adapter: a bias, a module saved in full
    COPY = "copy"  # repeats what the file or the base model holds, or is a trainer's scratch
    BASE = "base"  # a weight of the base model
    OTHER_ADAPTER = "other_adapter"


@dataclass(frozen=True)
class Ignored:
    """A tensor of the file that is known and belongs to no update: `why` as a phrase, `role` as what it is."""

    key: str
    why: str
    role: Role = Role.TRAINED


class Note(str):
    """A sentence for the user, without a final full stop; `flag` is the flag that says the same of modules, if any."""

    flag: Flag | None

    def __new__(cls, text: str, flag: Flag | None = None) -> Note:
        """Make a note of a text."""
        note = str.__new__(cls, text)
        note.flag = flag
        return note


def scale_unknown(why: str) -> Note:
    """The note that the scale of the updates is unknown, and why: a clause such as "the file holds no alpha"."""
    return Note(f"The scale is unknown: {why}", Flag.SCALE_UNKNOWN)


class Parameter(NamedTuple):
    """A parameter of a module, such as the weights of all experts: its name, and how many experts it holds.

    `transposed` is whether it holds (d_in, d_out) of each expert, None where that has no meaning.
    """

    name: str
    experts: int = 1
    transposed: bool | None = None


@dataclass(frozen=True)
class Source:
    """An opened file, as a format gets it.

    Attributes
    ----------
    tensors : the file
    config, config_path : the adapter's configuration, and where it is for a message; None without one
    adapter_name : which of several adapters the user asked for
    enabled : which groups of a fused layer are adapted, as the user says
    scales, groups : of a model in memory, module -> the multiplier of B @ A, and which groups are adapted
    parameters : of a PEFT model in memory, module -> the parameter of it that is adapted, not its weight
    parts : the models inside a model in memory, each as a source of its own, where several have adapters
    outer : what the names of a part begin with, which its configuration does not know, such as "llm."
    base : the user's base weights, for updates that rescale or rotate them
    layout : how the factors are stored, one of `LAYOUTS`, as the user says; None for what the file shows
    own : the base weights that the file itself holds of the layers that it adapts
    settings : plain values beside the tensors, by where they are in the file: {"metadata.alpha": 1, "epoch": 3}
    notes : what was changed or decided before a format saw the file, for the user
    asked : settings of the user that a reader has looked at; the others change nothing
    ignored : tensors that are not in `tensors`, and why
    """

    tensors: TensorFile
    config: Mapping[str, Any] | None = None
    config_path: str | None = None
    adapter_name: str | None = None
    enabled: tuple[bool, ...] | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    parts: tuple[Source, ...] = ()
    outer: str = ""
    base: BaseWeights | None = None
    layout: str | None = None
    own: OwnBase = NO_BASE
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    asked: set[str] = field(default_factory=set, compare=False)
    ignored: tuple[Ignored, ...] = ()

    @property
    def path(self) -> str:
        """The file, for a message."""
        return place(self.tensors.path)

    @property
    def config_place(self) -> str:
        """The configuration, for a message."""
        return self.config_path or "the configuration"

    @property
    def fan_in_fan_out(self) -> bool | None:
        """What the configuration says about how the base stores its weights, None if nothing."""
        value = (self.config or {}).get("fan_in_fan_out")
        return value if isinstance(value, bool) else None

    def place(self, module: str) -> str:
        """A module of the file, for a message."""
        return place(self.tensors.path, module)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self.tensors.layout[key].shape

    def factor(self, key: str) -> Factor:
        """A tensor as a matrix (dimensions after the first flattened), read on access.

        Raises
        ------
        ShapeError : fewer than two dimensions, an empty one, or numbers that are not floating point
        """
        info = self.tensors.layout[key]
        if len(info.shape) < 2 or 0 in info.shape:
            gather = "; DeepSpeed ZeRO-3 leaves empty tensors: gather them with its zero_to_fp32.py"
            raise ShapeError(
                f"The tensor {shown(key)} is not a matrix, or is empty: its shape is {list(info.shape)}, in {self.path}"
                f"{gather if 0 in info.shape else ''}"
            )
        if not info.dtype.startswith(("float", "bfloat")):
            raise ShapeError(
                f"The tensor {shown(key)} is not stored as floating point numbers: its type is {shown(info.dtype)}, in "
                f"{self.path}; dequantise the adapter first"
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
    """What a format reads from a file: the updates, and an account of every other tensor."""

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
    about : one line: who writes it, and how it says the scale, with the writer's source
    claims : whether a file is of this format, from names, shapes and configuration alone; never raises
    read : reads the file; raises `FormatError` or `ShapeError`
    fallback : whether the format is asked only about files that no other claims
    """

    name: str
    about: str
    claims: Callable[[Source], bool]
    read: Callable[[Source], Reading]
    fallback: bool = False


def not_an_adapter(source: Source, what: str) -> FormatError:
    """The error that a file is of a known kind and holds no adapter that can be read."""
    return FormatError(f"Not an adapter: {what}, in {source.path}; give a file with pairs of A and B")
