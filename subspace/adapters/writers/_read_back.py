"""What is to be written, read as any file is: a name that means something else to a format is found here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from subspace.adapters import formats
from subspace.adapters.format import Source
from subspace.adapters.layer import Layer
from subspace.adapters.update import Update
from subspace.adapters.writer import Layout
from subspace.checkpoints.tensor_bytes import PlannedFile
from subspace.errors import FormatError, SubspaceError
from subspace.text import listed, shown

__all__ = ["require_read_back"]

_MOST_MATCHES = 10**6  # patterns times modules: as PEFT does, each is tried on each


def require_read_back(layout: Layout, layers: Sequence[Layer], name: str, *, path: str) -> None:
    """Check that the format, and no other, reads every layer back under its name, with its shape and scale.

    Raises
    ------
    FormatError : it does not, as for a module that is called ``x.lora_A``
    """
    source = Source(PlannedFile(layout.tensors, path=path), _bounded(layout.config, layers))
    claiming = formats.claiming(source)
    if [known.name for known in claiming] != [name]:
        raise _unlike(f"claimed by {listed(known.name for known in claiming)}, not by {name}")
    (known,) = claiming
    try:
        updates = {update.module: update for update in known.read(source).updates}
    except SubspaceError as error:
        raise _unlike(shown(error, longest=1000)) from error
    if len(updates) != sum(layer.groups for layer in layers):
        raise _unlike(f"{len(updates)} modules, not {sum(layer.groups for layer in layers)}")
    for layer in layers:
        if layer.groups == 1:
            _require_alike(updates.get(layout.names[layer.module]), layer, layout.names[layer.module])


def _require_alike(update: Update | None, layer: Layer, name: str) -> None:
    """The shape and the scale of one layer; groups are named by what reads them."""
    if update is None or (update.r, update.d_in, update.d_out) != (
        layer.r,
        layer.A.shape[1],
        layer.B.shape[0],
    ):
        raise _unlike(f"no module {shown(repr(name))} of its shape")
    found, wanted = update.scale.value, layer.scale
    if found is not None and wanted is not None and not math.isclose(found, wanted, rel_tol=1e-14):
        raise _unlike(f"scale {found} of module {shown(name)}, not {wanted}")


def _bounded(config: Mapping[str, Any] | None, layers: Sequence[Layer]) -> Mapping[str, Any] | None:
    """The configuration; without its ranks where there are so many that looking them up takes minutes."""
    patterns = sum(len((config or {}).get(field, ())) for field in ("rank_pattern", "alpha_pattern"))
    if config is None or patterns * len(layers) <= _MOST_MATCHES:
        return config
    numbers = ("r", "lora_alpha", "rank_pattern", "alpha_pattern")
    return {key: value for key, value in config.items() if key not in numbers}


def _unlike(found: str) -> FormatError:
    return FormatError(
        f"what is written must be read back as it was: got {found}; the names of the modules mislead the format"
    )
