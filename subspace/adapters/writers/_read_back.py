"""A check that what is to be written is read back as it was: names of modules can mean something else to a format."""

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
from subspace.text import counted, listed, shown

__all__ = ["require_read_back"]

_MOST_MATCHES = 10**6  # patterns times modules, since each pattern is tried on each module


def require_read_back(layout: Layout, layers: Sequence[Layer], name: str, *, path: str) -> None:
    """Check that the format, and no other, reads every layer back with its name, shape and scale.

    Raises
    ------
    FormatError : it does not, as for a module whose name is ``x.lora_A``
    """
    # writers store A (r, d_in) and B (d_out, r), also where the shapes alone would not say so
    source = Source(PlannedFile(layout.tensors, path=path), _bounded(layout.config, layers), layout="BA")
    matching = formats.matching_formats(source)
    if [known.name for known in matching] != [name]:
        raise _unlike(
            f"it would be read as {listed((f.name for f in matching), empty='no known format')}, not {name}"
        )
    (known,) = matching
    try:
        updates = {update.module: update for update in known.read(source).updates}
    except SubspaceError as error:
        raise _unlike(shown(error, longest=1000)) from error
    if len(updates) != sum(layer.groups for layer in layers):
        wanted = sum(layer.groups for layer in layers)
        raise _unlike(f"it would be read as {counted(len(updates), 'module')}, not {wanted}")
    for layer in layers:
        if layer.groups == 1:
            _require_alike(updates.get(layout.names[layer.module]), layer, layout.names[layer.module])


def _require_alike(update: Update | None, layer: Layer, name: str) -> None:
    """Check the shape and the scale of one layer, which is not a stack of groups: a reader names those itself."""
    shape = layer.r, layer.A.shape[1], layer.B.shape[0]
    if update is None or (update.r, update.d_in, update.d_out) != shape:
        raise _unlike(f"no module {shown(repr(name))} of its shape would be read")
    found, wanted = update.scale.value, layer.scale
    if found is not None and wanted is not None and not math.isclose(found, wanted, rel_tol=1e-14):
        raise _unlike(f"the scale of module {shown(name)} would be read as {found}, not {wanted}")


def _bounded(config: Mapping[str, Any] | None, layers: Sequence[Layer]) -> Mapping[str, Any] | None:
    """The configuration, without its ranks where there are so many that matching them would take minutes."""
    patterns = sum(len((config or {}).get(field, ())) for field in ("rank_pattern", "alpha_pattern"))
    if config is None or patterns * len(layers) <= _MOST_MATCHES:
        return config
    numbers = ("r", "lora_alpha", "rank_pattern", "alpha_pattern")
    return {key: value for key, value in config.items() if key not in numbers}


def _unlike(found: str) -> FormatError:
    return FormatError(
        f"Cannot write the adapter so that it is read back unchanged: {found}; the names of its modules have another "
        "meaning in this format, so give others with `rename`"
    )
