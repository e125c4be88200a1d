"""The other tensors of an adapter's file: carried over into the same format, or named as left behind."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from subspace.adapters import Adapter
from subspace.adapters.format import Role
from subspace.checkpoints.peft_files import PREFIX
from subspace.checkpoints.tensor_bytes import StoredTensor
from subspace.checkpoints.widening import STORAGE
from subspace.text import counted, listed, shown

__all__ = ["carried", "left_behind"]

_MAGNITUDE = re.compile(r".*(\.lora_magnitude_vector(\.weight)?|\.dora_scale)", re.DOTALL)


def carried(
    adapter: Adapter, to: str, names: Mapping[str, str], *, taken: Collection[str]
) -> dict[str, StoredTensor]:
    """Tensors that stay as they are, where the format stays: biases, modules saved in full, magnitudes of DoRA.

    Parameters
    ----------
    names : module -> its name in the file that is written, which its other tensors get too
    taken : keys of the factors
    """
    if adapter.format != to or adapter.tensors is None:
        return {}
    ours = [item.key for item in adapter.ignored if item.role is Role.TRAINED]
    layout = adapter.tensors.layout
    magnitudes = [key for key in layout if _MAGNITUDE.fullmatch(key)]
    kept = [key for key in (*ours, *magnitudes) if key in layout and layout[key].dtype in STORAGE]
    new = _new_names(adapter, names)
    named = {key: _renamed(key, new) for key in kept}
    return {
        named[key]: StoredTensor(adapter.tensors.raw(key), layout[key].dtype)
        for key in kept
        if named[key] not in taken
    }


def _new_names(adapter: Adapter, names: Mapping[str, str]) -> dict[str, str]:
    """Name in the file that was read -> name in the file that is written, of modules where the two differ."""
    stored = {adapter.stored_names.get(module, module): new for module, new in names.items()}
    return {old: new for old, new in stored.items() if old != new}


def _renamed(key: str, new: Mapping[str, str]) -> str:
    """The key of a tensor with the new name of its module, the longest that it begins with."""
    before = PREFIX if key.startswith(PREFIX) else ""
    parts = key.removeprefix(PREFIX).split(".")
    for n in range(min(len(parts), 64), 0, -1):
        old = ".".join(parts[:n])
        if old in new:
            return before + ".".join([new[old], *parts[n:]])
    return key


def left_behind(
    adapter: Adapter, kept: Mapping[str, StoredTensor], names: Mapping[str, str]
) -> tuple[str, ...]:
    """What the user should know of tensors that no update uses: which are carried over, and which are not."""
    new = _new_names(adapter, names)
    left = [
        f"{shown(item.key)} ({item.why})" for item in adapter.ignored if _renamed(item.key, new) not in kept
    ]
    notes = []
    if kept:
        notes.append(f"{counted(len(kept), 'other tensor')} carried over unchanged: {listed(kept)}")
    if left:
        notes.append(f"{counted(len(left), 'tensor')} NOT carried over: {listed(left)}")
    if adapter.unknown:
        notes.append(
            f"{counted(len(adapter.unknown), 'unknown tensor')} NOT carried over: {listed(adapter.unknown)}"
        )
    return tuple(notes)
