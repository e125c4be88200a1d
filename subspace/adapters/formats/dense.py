"""A dense delta: one matrix alone (``.npy``, a saved tensor), or ``<module>.delta_W`` matrices.

A matrix alone is read as ``delta_W`` (d_out, d_in) with scale 1. Its right singular directions are also those of a
saved factor A, so a file that holds only an A can be compared with another.
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import DenseUpdate

__all__ = ["FORMAT"]

_SUFFIXES = (".delta_W", ".delta", ".diff")
# a factor alone, an embedding of textual inversion
_OTHERS = ("lora_", "<", "emb_params")


def _claims(source: Source) -> bool:
    keys = list(source.tensors.layout)
    if len(keys) == 1 and not keys[0].endswith(_SUFFIXES):
        return len(source.shape(keys[0])) == 2 and _module(keys[0]) is not None
    return bool(keys) and all(key.endswith(_SUFFIXES) for key in keys)


def _module(key: str) -> str | None:
    """Module that a matrix belongs to: "" for a bare one, None if the key is that of a layer's own weight."""
    for suffix in _SUFFIXES:
        if key.endswith(suffix):
            return key[: -len(suffix)]
    return "" if "." not in key and not key.startswith(_OTHERS) else None


def _read(source: Source) -> Reading:
    updates = [DenseUpdate(_module(key) or "", source.factor(key)) for key in in_order(source.tensors.layout)]
    return Reading(tuple(updates))


FORMAT = Format(
    name="dense",
    about="a dense delta_W, one matrix or <module>.delta_W: scale 1, the delta is what it is",
    claims=_claims,
    read=_read,
)
