"""What to expect of the sum of several adapters, from their updates and, where given, the inputs of their modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.analysis.by_inputs import ByInputs
from subspace.analysis.met_modules import Controls, Met, in_order, met
from subspace.analysis.met_totals import module_row, pair_rows, total_row
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import flag_notes
from subspace.results.forecast import Forecast
from subspace.text import counted

if TYPE_CHECKING:
    from subspace.analysis.collection import Collection

__all__ = ["forecast"]


def forecast(
    collection: Collection,
    weights: Sequence[float] | None = None,
    *,
    members: Sequence[int] | None = None,
    inputs: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Forecast:
    """How the updates of several adapters meet when they are added, per module and in total, beside what chance gives.

    Parameters
    ----------
    collection : the adapters
    weights : of each in the sum, of any sign; 1 by default
    members : numbers of the adapters in the collection, in the order of `weights`; all by default
    inputs : what ``subspace inputs`` wrote, or its result, for the cosine of outputs
    seed : of the random directions that STI stands beside
    progress : called with (modules done, modules in all)

    Raises
    ------
    ValueRangeError : fewer than two adapters, a weight that is not finite, or not one weight for each
    InconclusiveError : no module has a number, since no two adapters change the same one
    SubspaceError : an adapter cannot be read

    Notes
    -----
    Everything is of products of the K stacked directions of a module, K the sum of ranks, and nothing of d_out x d_in.
    The directions of one module of every kind, and of the modules that read one input, are in memory at a time.

    Examples
    --------
    >>> from subspace.analysis.held_adapters import HeldAdapters
    >>> from subspace.adapters import load_adapter
    >>> pair = [{"q.lora_A.weight": np.eye(1, 4), "q.lora_B.weight": sign * np.ones((4, 1))} for sign in (1.0, -1.0)]
    >>> held = HeldAdapters({name: load_adapter(each, scale=1.0) for name, each in zip("ab", pair)})
    >>> found = forecast(held)
    >>> round(found.total.cosine, 12), round(found.total.energy_ratio, 12)
    (-1.0, 0.0)
    """
    numbers = tuple(range(len(collection.members)) if members is None else members)
    given = tuple(1.0 for _ in numbers) if weights is None else tuple(float(each) for each in weights)
    _check(collection, numbers, given)
    modules = [module for module in collection.modules if set(collection.holders(module)) & set(numbers)]
    with_inputs = None if inputs is None else ByInputs(inputs, modules)
    order = list(in_order(modules))
    found, controls = {}, Controls(order)
    for done, module in enumerate(order, 1):
        found[module], together = met(collection, module, numbers, given, with_inputs, seed)
        if together is not None and found[module].adapters > 1:
            controls.add(found[module], together)
        if progress is not None:
            progress(done, len(modules))
    for each in found.values():
        controls.settle(each)
    return _result(collection, numbers, given, [found[module] for module in modules])


def _check(collection: Collection, numbers: Sequence[int], weights: Sequence[float]) -> None:
    if len(numbers) < 2 or len(set(numbers)) < len(numbers):
        raise ValueRangeError(
            f"Nothing to add: {counted(len(set(numbers)), 'adapter')}; give two different ones or more"
        )
    outside = [n for n in numbers if not 0 <= n < len(collection.members)]
    if outside:
        raise ValueRangeError(
            f"No such adapter: number {outside[0]} of {len(collection.members)}; `members` counts from 0"
        )
    if len(weights) != len(numbers):
        raise ValueRangeError(
            f"{counted(len(weights), 'weight')} for {counted(len(numbers), 'adapter')}; give one weight for each"
        )
    wrong = [weight for weight in weights if not math.isfinite(weight)]
    if wrong:
        raise ValueRangeError(f"A weight that is not finite: {wrong[0]}; give finite `weights`")


def _result(
    collection: Collection, numbers: Sequence[int], weights: tuple[float, ...], found: Sequence[Met]
) -> Forecast:
    if not any(np.isfinite(each.overlaps["left"]).any() for each in found if each.adapters > 1):
        raise InconclusiveError(
            f"No module in common: no two of the {len(numbers)} adapters change the same module; check that they are "
            "of one base model"
        )
    rows = tuple(module_row(each) for each in found)
    return Forecast(
        paths=tuple(collection.members[n].path for n in numbers),
        weights=weights,
        total=total_row(found, len(numbers)),
        modules=rows,
        pairs=pair_rows(found, len(numbers)),
        notes=flag_notes({row.module: row.flags for row in rows}),
    )
