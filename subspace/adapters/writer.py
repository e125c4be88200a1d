"""What a format is that adapters are written in: its name, what it can hold, and the keys of its tensors.

A module in `subspace.adapters.writers` declares one object ``WRITER`` and is found by being there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer
from subspace.checkpoints.peft_files import config_text
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes, torch_bytes
from subspace.checkpoints.weights_files import CONFIG

__all__ = ["Layout", "Writer"]


@dataclass(frozen=True)
class Layout:
    """What goes into a file.

    Attributes
    ----------
    tensors : key -> tensor
    names : module -> its name in the file
    config : the configuration that is written next to the weights, None without one
    metadata : of a safetensors file
    notes : sentences for the user, without a final full stop
    """

    tensors: Mapping[str, StoredTensor]
    names: Mapping[str, str]
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Writer:
    """One format that adapters are written in; `subspace.adapters.formats` reads it under the same name.

    Attributes
    ----------
    name : as the user asks for it
    about : one line: where the scale goes, with the source of a library that loads it
    holds : whether the format can hold a layer of such a kind and kernel
    lay_out : layers, under full names of their modules, and the adapter they are of -> `Layout`; raises
        `SubspaceError`
    fitted : layers -> the same with their scales as the format can hold them: stored, folded into B, or left out
    weights : name of the file of weights in a directory, None where the output is a single file
    stacked : whether groups of a fused layer are stored stacked
    torch : whether the file is torch's, not safetensors
    flattened : whether names have underscores for dots, so that a name that is read like that stays
    """

    name: str
    about: str
    holds: Callable[[Layer], bool]
    lay_out: Callable[[Sequence[Layer], Adapter], Layout]
    fitted: Callable[[Sequence[Layer]], list[Layer]]
    weights: str | None = None
    stacked: bool = False
    torch: bool = False
    flattened: bool = False

    def files(self, layout: Layout) -> dict[str, bytes]:
        """Name in the directory -> content of each file; a single file has the name ""."""
        weights = (
            torch_bytes(layout.tensors)
            if self.torch
            else safetensors_bytes(layout.tensors, {"format": "pt", **layout.metadata})
        )
        contents = {self.weights or "": weights}
        if layout.config is not None:
            contents[CONFIG] = config_text(layout.config)
        return contents
