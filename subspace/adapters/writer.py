"""What a written format is: a name, what it can hold, and the keys under which it lays out layers.

A module in `subspace.adapters.writers` declares one object ``WRITER`` and is found by being there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer
from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes, torch_bytes

__all__ = ["CONFIG", "Layout", "Writer"]

CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Layout:
    """The tensors of a file under the names that the format gives them, and what stands beside them.

    `names` says how each layer is called in the file, `notes` what the user should be told.
    """

    tensors: Mapping[str, StoredTensor]
    names: Mapping[str, str]
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Writer:
    """One format that adapters are written in; what it reads back is `subspace.adapters.formats`' of the same name.

    Attributes
    ----------
    name : as the user asks for it
    about : one line: where the scale goes, with the source of who loads it
    holds : whether it has a place for a layer: a kind, a convolution's kernel
    lay_out : layers and the adapter they are of -> `Layout`; raises `SubspaceError` with one clear line
    fitted : layers with their scales as the format can say them: stored, folded into B, or left out
    weights : name of the weights in a directory, None where the output is one file
    stacked : whether groups of a fused layer are stored stacked
    torch : whether the container is torch's, not safetensors
    """

    name: str
    about: str
    holds: Callable[[Layer], bool]
    lay_out: Callable[[Sequence[Layer], Adapter], Layout]
    fitted: Callable[[Sequence[Layer]], list[Layer]]
    weights: str | None = None
    stacked: bool = False
    torch: bool = False

    def files(self, layout: Layout) -> dict[str, bytes]:
        """Relative name -> content of every file; the name of a single one is ""."""
        weights = (
            torch_bytes(layout.tensors)
            if self.torch
            else safetensors_bytes(layout.tensors, {"format": "pt", **layout.metadata})
        )
        contents = {self.weights or "": weights}
        if layout.config is not None:
            text = json.dumps(layout.config, indent=2, allow_nan=False)
            contents[CONFIG] = f"{text}\n".encode("ascii")
        return contents
