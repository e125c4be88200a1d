"""Settings of the user that could not change how a file was read, which a note says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters.format import Note
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters.adapter import Adapter
    from subspace.adapters.format import Source

__all__ = ["with_unused"]

_DEFAULT = "default"  # PEFT's name for the adapter of a directory, whose keys have none


def with_unused(adapter: Adapter, source: Source, *, named: str | None) -> Adapter:
    """The adapter with a note for each setting of the user that changed nothing.

    Parameters
    ----------
    named : the adapter that the user asked for in a file or directory
    """
    notes = tuple(Note(text) for text in _unused(adapter, source, named))
    return replace(adapter, notes=adapter.notes + notes) if notes else adapter


def _unused(adapter: Adapter, source: Source, named: str | None) -> Iterator[str]:
    if source.enabled is not None and not any(Flag.FUSED in update.flags for update in adapter.values()):
        yield "`enable_lora` changed nothing: no layer of the file is a fused one"
    if source.layout is not None and "layout" not in source.asked:
        yield f"`layout` changed nothing: the format {shown(adapter.format)} has one way to store the factors"
    if named is not None and named not in {_DEFAULT, *_names(source, named)}:
        yield "`adapter_name` changed nothing: there is one adapter, which has no name"


def _names(source: Source, named: str) -> Iterator[str]:
    """What may be the name of an adapter: a part of a key, or the folder of the file."""
    yield os.path.basename(os.path.dirname(os.path.abspath(source.tensors.path)))  # noqa: PTH100, PTH119, PTH120
    for key in source.tensors.layout:
        if named in key:
            yield from key.split(".")
