"""A dense delta_W: a single matrix (``.npy``, a saved tensor), or matrices called ``<module>.delta_W``.

A single matrix is read as ``delta_W`` (d_out, d_in) with scale 1. Its right singular directions are also those of a
factor A, so a file that holds only an A can be compared on side a.
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _peft_types as types
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import DenseUpdate

__all__ = ["FORMAT"]

_SUFFIXES = (".delta_W", ".delta", ".diff")
# a factor without the other, embeddings of textual inversion and of prompts
_OTHERS = ("lora_", "<", "emb_params", "prompt_embeddings")


def _claims(source: Source) -> bool:
    keys = list(source.tensors.layout)
    if types.peft_type(source) not in {None, "LORA"}:
        return False
    if len(keys) == 1 and not keys[0].endswith(_SUFFIXES):
        return len(source.shape(keys[0])) == 2 and _module(keys[0]) is not None
    return bool(keys) and all(key.endswith(_SUFFIXES) for key in keys)


def _module(key: str) -> str | None:
    """Module of a matrix: "" for one without a dotted name, None for the weight of a layer."""
    for suffix in _SUFFIXES:
        if key.endswith(suffix):
            return key[: -len(suffix)]
    return "" if "." not in key and not key.startswith(_OTHERS) else None


def _read(source: Source) -> Reading:
    updates = [DenseUpdate(_module(key) or "", source.factor(key)) for key in in_order(source.tensors.layout)]
    return Reading(tuple(updates))


FORMAT = Format(
    name="dense",
    about="a dense delta_W, one matrix or <module>.delta_W: scale 1",
    claims=_claims,
    read=_read,
)
