"""An adapter: module name -> update, with an account of everything else that its file holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from subspace.adapters.format import Ignored, Note
from subspace.adapters.update import Scale, Update
from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile

__all__ = ["Adapter", "with_scale"]


@dataclass(frozen=True, eq=False)
class Adapter(Mapping[str, Update]):
    """The updates of one adapter by module name, with an account of everything else in the file.

    Attributes
    ----------
    path : as given, or "the state dict in memory"
    format, container : e.g. "peft" in "safetensors"
    updates : module name -> `LowRankUpdate` or `DenseUpdate`, factors read on access
    ignored : tensors that are known and not part of an update
    unknown : keys that nothing explains
    notes : what the user should be told
    config : the configuration beside the weights, empty without one
    stored_names : module -> its name in the file, of modules that were renamed
    """

    path: str
    format: str
    container: str
    updates: Mapping[str, Update]
    ignored: tuple[Ignored, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: TensorFile | None = None
    stored_names: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, module: str) -> Update:
        return self.updates[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self.updates)

    def __len__(self) -> int:
        return len(self.updates)

    def __repr__(self) -> str:
        ranks = sorted({update.r for update in self.values()})
        return f"<Adapter of {shown(self.path)}: {self.format}, {len(self)} modules, r = {', '.join(map(str, ranks))}>"

    def release(self) -> None:
        """Give back the memory of the factors read so far: a file is read one module at a time."""
        if self.tensors is not None:
            self.tensors.release()

    def sha256(self) -> str | None:
        """SHA-256 of the weights file in hexadecimal, None for tensors in memory."""
        return self.tensors.sha256() if self.tensors is not None and self.container != "memory" else None


def with_scale(adapter: Adapter, scale: float) -> Adapter:
    """The same adapter with one scale for every module, given by the user.

    Raises
    ------
    ValueRangeError : a scale that is zero or not finite
    """
    if not math.isfinite(scale) or scale == 0:
        raise ValueRangeError(f"a scale must be a finite number other than 0: got {scale}; give alpha / r")
    given = Scale(float(scale), "given with --scale")
    updates = {module: update.scaled(given) for module, update in adapter.items()}
    notes = tuple(note for note in adapter.notes if note.flag is not Flag.SCALE_UNKNOWN)
    return replace(adapter, updates=updates, notes=notes)
