"""From what a user gives a question to the adapters that it is asked of: two sides, their starts, base weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from subspace.adapters import Adapter, DenseUpdate, load_adapter
from subspace.adapters.naming.rename import renamed_base
from subspace.adapters.place import place
from subspace.adapters.update import Factor
from subspace.errors import FormatError, InconclusiveError, SubspaceError, UnrecognisedError
from subspace.flags import Flag
from subspace.text import module_shown, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters import BaseWeights, Update

__all__ = ["Loading", "base_as_adapter", "per_side", "starts", "two_adapters"]

_Groups: TypeAlias = Sequence[bool]


@dataclass(frozen=True)
class Loading:
    """How one side is read: the keywords of `load_adapter`."""

    base: Any = None
    scale: float | None = None
    adapter_name: str | None = None
    enable_lora: _Groups | None = None
    rename: Mapping[str, str] | None = None
    layout: str | None = None

    def adapter(self, source: Any) -> Adapter:
        """The source as an adapter; errors as `load_adapter`."""
        return load_adapter(
            source,
            base=self.base,
            scale=self.scale,
            adapter_name=self.adapter_name,
            enable_lora=self.enable_lora,
            rename=self.rename,
            layout=self.layout,
        )


def per_side(
    *, base: Any, scale: Any, adapter_name: Any, enable_lora: Any, rename: Any, layout: Any
) -> tuple[Loading, Loading]:
    """The loading keywords of two sides; a tuple of two is one value for each, anything else is for both."""
    groups = _both(enable_lora) if _is_per_side(enable_lora) else (enable_lora, enable_lora)
    sides = (_both(base), _both(scale), _both(adapter_name), groups, _both(rename), _both(layout))
    first, second = zip(*sides, strict=True)
    return Loading(*first), Loading(*second)


def _is_per_side(groups: Any) -> bool:
    """Whether enable_lora is two lists of groups and not one list; None is the list of a side that has none."""
    return isinstance(groups, tuple) and any(
        each is None or isinstance(each, tuple | list) for each in groups
    )


def _both(value: Any) -> tuple[Any, Any]:
    if isinstance(value, tuple):
        if len(value) != 2:
            raise FormatError(
                f"{len(value)} values for two adapters: {shown(value)}; give one for both, or two"
            )
        return value[0], value[1]
    return value, value


def two_adapters(first: Any, second: Any, loading: tuple[Loading, Loading]) -> tuple[Adapter, Adapter]:
    """Two adapters; where one side is plain weights, its matrices under the other's modules (figure 8).

    Raises
    ------
    UnrecognisedError : both sides are plain weights, or one is neither an adapter nor weights
    """
    one, other = _opened(first, loading[0]), _opened(second, loading[1])
    if isinstance(one, Adapter):
        return one, other if isinstance(other, Adapter) else base_as_adapter(other, one)
    if isinstance(other, Adapter):
        return base_as_adapter(one, other), other
    raise UnrecognisedError(
        f"No adapter among the two: {place(one.path)} and {place(other.path)} both hold plain weights; for a full "
        "fine-tune give the weights that it was tuned from as `base`"
    )


def _opened(source: Any, loading: Loading) -> Adapter | BaseWeights:
    """An adapter, or the base weights that a file holds in its place."""
    if not isinstance(source, str | os.PathLike | Adapter) and _is_base(source):
        return source
    try:
        return loading.adapter(source)
    except UnrecognisedError as error:
        from subspace.adapters import load_base

        try:
            base = load_base(source)
        except SubspaceError:
            raise error from None
    return renamed_base(base, loading.rename) if loading.rename else base


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
            codes = (Flag.DEQUANTISED,) if weight.quantised else ()
            updates[module] = DenseUpdate(module, matrix, flags=(Flag.DENSE, Flag.BASE, *codes))
    if not updates:
        raise InconclusiveError(
            f"No module of the adapter is in the base: {place(adapter.path)} has "
            f"{module_shown(next(iter(adapter)))}, and {place(base.path)} has "
            f"{module_shown(next(iter(base.modules), 'none'))}; rename modules with `rename`, or give the base that "
            "the adapter was trained on"
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


def starts(init: Any, first: Adapter, second: Adapter) -> tuple[Adapter | None, Adapter | None]:
    """The start of either adapter; one start given is that of every adapter whose shapes it has.

    Raises
    ------
    FormatError : more than two starts, or one that fits neither adapter
    """
    if init is None:
        return None, None
    if isinstance(init, tuple | list):
        if len(init) != 2:
            raise FormatError(f"{len(init)} starts for two adapters; give one, or one for each, as `init`")
        one, other = init
        return (None if one is None else load_adapter(one)), (None if other is None else load_adapter(other))
    start = load_adapter(init)
    fitting = [_fits(start, adapter) for adapter in (first, second)]
    if not any(fitting):
        raise FormatError(
            f"The start has the modules and ranks of neither adapter: {place(start.path)} is no start of "
            f"{place(first.path)} or {place(second.path)}; give the adapter before training as `init`"
        )
    return (start if fitting[0] else None), (start if fitting[1] else None)


def _fits(start: Adapter, adapter: Adapter) -> bool:
    shared = set(start) & set(adapter)
    if not shared and len(start) == len(adapter) == 1:
        return next(iter(start.values())).r == next(iter(adapter.values())).r
    return bool(shared) and all(start[module].r == adapter[module].r for module in shared)
