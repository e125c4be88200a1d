"""What stands in an adapter's file beside its pairs: carried over into the same format, or said to be left behind."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from subspace.adapters import Adapter
from subspace.adapters.format import Role
from subspace.checkpoints.tensor_bytes import StoredTensor
from subspace.checkpoints.widening import STORAGE
from subspace.text import shown

__all__ = ["beside", "carried"]

_MAGNITUDE = re.compile(r".*(\.lora_magnitude_vector(\.weight)?|\.dora_scale)", re.DOTALL)


def carried(adapter: Adapter, to: str, *, taken: Collection[str]) -> dict[str, StoredTensor]:
    """Tensors that stay as they are, where the format stays: biases, modules saved in full, magnitudes of DoRA."""
    if adapter.format != to or adapter.tensors is None:
        return {}
    ours = [item.key for item in adapter.ignored if item.role is Role.TRAINED]
    layout = adapter.tensors.layout
    magnitudes = [key for key in layout if _MAGNITUDE.fullmatch(key)]
    kept = [key for key in (*ours, *magnitudes) if key in layout and layout[key].dtype in STORAGE]
    return {
        key: StoredTensor(adapter.tensors.raw(key), layout[key].dtype) for key in kept if key not in taken
    }


def beside(adapter: Adapter, kept: Mapping[str, StoredTensor]) -> tuple[str, ...]:
    """What the user should be told of tensors that no update uses."""
    left = [f"{shown(item.key)} ({item.why})" for item in adapter.ignored if item.key not in kept]
    told = []
    if kept:
        told.append(f"{len(kept)} tensors beside the pairs are carried over as they are: {_some(list(kept))}")
    if left:
        told.append(f"{len(left)} tensors are NOT carried over: {', '.join(left[:3])}{_more(left)}")
    if adapter.unknown:
        told.append(f"{len(adapter.unknown)} unknown tensors are NOT carried over: {_some(adapter.unknown)}")
    return tuple(told)


def _some(keys: Collection[str]) -> str:
    first = [shown(key) for key in list(keys)[:3]]
    return ", ".join(first) + _more(keys)


def _more(keys: Collection[str]) -> str:
    return ", ..." if len(keys) > 3 else ""
