"""What a comparison may be given: adapters, starts, and base weights in an adapter's place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from subspace.adapters import Adapter, DenseUpdate, load_adapter
from subspace.adapters.naming.rename import renamed_base
from subspace.adapters.update import Factor
from subspace.errors import FormatError, InconclusiveError, SubspaceError, UnrecognisedError
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters import BaseWeights, Update

__all__ = ["as_pair", "base_as_adapter", "damaged", "open_side", "starts"]


def as_pair(first: Any, second: Any) -> tuple[Adapter, Adapter]:
    """Two adapters; where one side is plain weights, its matrices under the other's modules (figure 8)."""
    one, other = open_side(first), open_side(second)
    if isinstance(one, Adapter) and isinstance(other, Adapter):
        return one, other
    from subspace.adapters import load_base

    if isinstance(one, Adapter):
        return one, base_as_adapter(load_base(other), one)
    if isinstance(other, Adapter):
        return base_as_adapter(load_base(one), other), other
    raise UnrecognisedError(
        f"one side must be an adapter: got plain weights twice, {shown(one.path)} and {shown(other.path)}; "
        "for a full fine-tune give its base with --base (in Python: load_adapter(..., base=...))"
    )


def open_side(source: Any, **options: Any) -> Adapter | BaseWeights:
    """An adapter, or the base weights that a file holds in its place.

    Raises
    ------
    UnrecognisedError : the file is neither
    """
    if not isinstance(source, str | os.PathLike | Adapter) and _is_base(source):
        return source
    try:
        return load_adapter(source, **options)
    except UnrecognisedError:
        from subspace.adapters import load_base

        try:
            base = load_base(source)
        except SubspaceError:
            base = None
        if base is None:
            raise
    rename = options.get("rename")
    return renamed_base(base, rename) if rename else base


def _is_base(source: Any) -> TypeGuard[BaseWeights]:
    from subspace.adapters import BaseWeights

    return isinstance(source, BaseWeights)


def base_as_adapter(base: BaseWeights, adapter: Adapter) -> Adapter:
    """The base weights of an adapter's modules as dense matrices under the adapter's names.

    Raises
    ------
    InconclusiveError : the base has none of the modules
    """
    base.require_names(adapter)
    updates: dict[str, Any] = {}
    for module, update in adapter.items():
        weight = base.weight(update)
        if weight is not None:
            matrix = Factor(weight.shape, weight.stored.dtype, partial(_read, base, update))
            updates[module] = DenseUpdate(module, matrix, flags=(Flag.DENSE, Flag.BASE))
    if not updates:
        raise InconclusiveError(
            f"a base must have a module of the adapter: got none, in {shown(base.path)} and {shown(adapter.path)}"
        )
    return Adapter(
        path=base.path,
        format="base weights",
        container=base.tensors.container,
        updates=updates,
        tensors=base.tensors,
    )


def _read(base: BaseWeights, update: Update) -> NDArray[Any]:
    """W of an update, opened for this one read: a weight that is held would keep its shard in memory."""
    weight = base.weight(update)
    assert weight is not None
    return weight.factor().load()


def damaged(sources: Sequence[tuple[str, Update]]) -> str:
    """Path of the source that holds a number that is not finite; all of them, where none does or several do."""
    bad = [path for path, update in sources if not all(np.isfinite(f.load()).all() for f in _factors(update))]
    paths = dict.fromkeys(bad or [path for path, _ in sources])
    return " or ".join(shown(path, longest=1000) for path in paths)


def _factors(update: Update) -> tuple[Factor, ...]:
    return (update.matrix,) if isinstance(update, DenseUpdate) else (update.A_factor, update.B_factor)


def starts(init: Any, first: Adapter, second: Adapter) -> tuple[Adapter | None, Adapter | None]:
    """The start of either adapter; one start given is that of every adapter whose shapes it has."""
    if init is None:
        return None, None
    if isinstance(init, tuple | list):
        if len(init) != 2:
            raise FormatError(f"a start is one, or two: of the first and of the second: got {len(init)}")
        one, other = init
        return (None if one is None else load_adapter(one)), (None if other is None else load_adapter(other))
    start = load_adapter(init)
    fitting = [_fits(start, adapter) for adapter in (first, second)]
    if not any(fitting):
        raise FormatError(
            f"a start must have the modules and ranks of an adapter: {shown(start.path)} fits neither "
            f"{shown(first.path)} nor {shown(second.path)}"
        )
    return (start if fitting[0] else None), (start if fitting[1] else None)


def _fits(start: Adapter, adapter: Adapter) -> bool:
    shared = set(start) & set(adapter)
    if not shared and len(start) == len(adapter) == 1:
        return next(iter(start.values())).r == next(iter(adapter.values())).r
    return bool(shared) and all(start[module].r == adapter[module].r for module in shared)
