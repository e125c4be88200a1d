"""An adapter: the updates of its modules, and an account of everything else in its file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from subspace.adapters.format import Ignored, Note
from subspace.adapters.update import Scale, Update
from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.checkpoints import TensorFile

__all__ = ["JOINED", "Adapter", "with_scale"]

JOINED = " + "  # between the names of formats that one file mixes


@dataclass(frozen=True, eq=False)
class Adapter(Mapping[str, Update]):
    """The updates of one adapter, as a read-only mapping of module name to update.

    Made by `load_adapter`. ``adapter["h.0.attn.q_proj"]`` is the update of a module, ``for module in adapter`` goes
    over their names in natural order.

    Attributes
    ----------
    path : str
        The file of the weights, or "the state dict in memory".
    format, container : str
        What was read: e.g. "peft" in "safetensors", or "kohya + peft" where a file mixes formats.
    updates : mapping of str to LowRankUpdate or DenseUpdate
        What each module learned, by dotted path; factors are read when they are used.
    ignored : tuple of Ignored
        Tensors of the file that are known and belong to no update, each with why.
    unknown : tuple of str
        Keys of the file that nothing explains.
    notes : tuple of Note
        Sentences that a user should read, such as that the scale is unknown.
    config : mapping
        The adapter's configuration (``adapter_config.json``), empty without one.
    stored_names : mapping of str to str
        Module -> its name in the file, of modules that were renamed.
    tensors : TensorFile, optional
        The open file.
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
        ranks = listed(sorted({update.r for update in self.values()}), most=8)
        return f"<Adapter {shown(self.path)}: {self.format}, {counted(len(self), 'module')}, r = {ranks}>"

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the file: one, as a rule."""
        return tuple(self.format.split(JOINED))

    def release(self) -> None:
        """Free the memory of the factors read so far; they are read again on access."""
        if self.tensors is not None:
            self.tensors.release()

    def sha256(self) -> str | None:
        """SHA-256 of the file of weights in hexadecimal, None for tensors in memory."""
        return self.tensors.sha256() if self.tensors is not None and self.container != "memory" else None


def with_scale(adapter: Adapter, scale: float) -> Adapter:
    """The same adapter with one scale for every module, in place of what its file says.

    Parameters
    ----------
    adapter : Adapter
        The adapter, which stays as it is.
    scale : float
        Multiplier of every ``B @ A`` (of the matrix itself, for a dense update), finite and not 0: alpha / r, or
        alpha / sqrt(r) of rsLoRA. It may be negative.

    Returns
    -------
    Adapter
        A new adapter, without the note that the scale is unknown; nothing is read.

    Raises
    ------
    ValueRangeError : the scale is 0 or not finite

    Examples
    --------
    >>> import numpy as np
    >>> from subspace.adapters import load_adapter
    >>> adapter = load_adapter({"q.lora_A": np.ones((2, 4)), "q.lora_B": np.ones((3, 2))})
    >>> with_scale(adapter, 0.5)["q"].delta_W()[0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    if not math.isfinite(scale) or scale == 0:
        raise ValueRangeError(f"Invalid scale: {scale} is not a finite number other than 0; give alpha / r")
    updates = {
        module: update.scaled(Scale(float(scale), "given by the user", r=update.scale.r))
        for module, update in adapter.items()
    }
    notes = tuple(note for note in adapter.notes if note.flag is not Flag.SCALE_UNKNOWN)
    return replace(adapter, updates=updates, notes=notes)
