"""An adapter as an index keeps it: the key that its content has, and the file of its canonical forms."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from subspace.adapters.adapter import Adapter
from subspace.adapters.load import load_adapter
from subspace.adapters.update import LowRankUpdate, Update
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.geometry.canonical import Canonical
from subspace.index.checkpoint_step import step_of
from subspace.index.entry import Entry, StoredModule, key_of
from subspace.index.shard import shard_bytes
from subspace.index.update_form import canonical_of
from subspace.text import counted, listed, shown

__all__ = ["Prepared", "prepared"]


@dataclass(frozen=True)
class Prepared:
    """An adapter that was opened; its numbers are read when it is encoded.

    Attributes
    ----------
    key : of its content and of how it is read
    facts : path, source, reading and step, of the member that it becomes
    """

    adapter: Adapter
    identity: str
    key: str
    facts: dict[str, Any]

    def encoded(self) -> tuple[bytes, Entry, list[str]]:
        """The content of its file, its entry, and notes on modules without directions."""
        found = [_form(update) for update in self.adapter.values()]
        modules = tuple(module for module, _ in found)
        sha = None if self.adapter.container == "memory" else self.identity
        entry = Entry(self.key, sha, 0, 0, self.adapter.format, _base(self.adapter), modules)
        content, entry = shard_bytes(entry, [form for _, form in found], self.facts)
        self.adapter.release()
        return content, entry, _notes(self.facts["path"], entry)


def prepared(source: Any, reading: Mapping[str, Any], step: int | None) -> Prepared:
    """An adapter with its key, from its bytes and its header.

    Parameters
    ----------
    source : as `load_adapter` takes it
    reading : options that it is read with; where it is an `Adapter`, was read with
    step : of a checkpoint, where its path does not say it

    Raises
    ------
    SubspaceError : it cannot be read
    """
    adapter = source if isinstance(source, Adapter) else load_adapter(source, **reading)
    path = os.fsdecode(source) if isinstance(source, str | bytes | os.PathLike) else adapter.path
    identity = _identity(adapter)
    in_memory = adapter.container == "memory"
    facts = {
        "path": path,
        "source": f"memory:{identity}" if in_memory else os.path.abspath(adapter.path),  # noqa: PTH100
        "reading": json.dumps(dict(reading), sort_keys=True),
        "step": step_of(path) if step is None else step,
    }
    key = key_of(identity, reading, [_as_read(update) for update in adapter.values()])
    return Prepared(adapter, identity, key, facts)


def _identity(adapter: Adapter) -> str:
    """SHA-256 of the file of weights, or of all factors of tensors in memory."""
    found = adapter.sha256()
    if found is not None:
        return found
    sha = sha256()
    for update in adapter.values():
        for M in (update.A, update.B) if isinstance(update, LowRankUpdate) else (update.matrix.load(),):
            sha.update(np.ascontiguousarray(M, np.float64).tobytes())
    return sha.hexdigest()


def _as_read(update: Update) -> list[Any]:
    """What the header and the configuration say of a module: two that differ in it are two contents."""
    rows = None if update.rows is None else list(update.rows)
    return [update.module, update.kind, update.r, update.d_in, update.d_out, rows, _scale(update)]


def _scale(update: Update) -> float | None:
    value = update.scale.value
    return None if value is None or not math.isfinite(value) else float(value)


def _base(adapter: Adapter) -> str | None:
    name = adapter.config.get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def _form(update: Update) -> tuple[StoredModule, Canonical]:
    """A module and its form, which is empty where delta_W has no directions, with a flag that says why."""
    why, form = None, None
    try:
        form = canonical_of(update)
        why = None if form.k else Flag.UNTRAINED
    except ValueRangeError:
        why = Flag.NOT_FINITE
    except InconclusiveError:
        why = Flag.NEEDS_BASE
    if form is None or why is not None:
        form = Canonical(np.zeros((0, update.d_in)), np.zeros((0, update.d_out)), np.zeros(0))
    flags = dict.fromkeys(map(str, (*update.flags, *([why] if why else []))))
    module = StoredModule(
        stored=update.module, kind=update.kind, r=update.r, d_in=update.d_in, d_out=update.d_out,
        k_in=len(form.right), k_out=len(form.left), k=form.k, factored=form.a is not None,
        scale=_scale(update), flags=tuple(flags),
    )  # fmt: skip
    return module, form


def _notes(path: str, entry: Entry) -> list[str]:
    empty = [module.stored for module in entry.modules if not module.usable]
    if not empty:
        return []
    return [
        f"{counted(len(empty), 'module')} of {shown(path)} without directions (untrained, not finite, or in need of "
        f"the base): {listed(empty)}"
    ]
