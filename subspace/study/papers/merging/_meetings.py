"""How the updates of eight tasks meet, from their weights and the inputs of their modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.analysis.forecast import forecast
from subspace.analysis.held_adapters import HeldAdapters
from subspace.geometry.joint import joint
from subspace.study.papers.merging._peers import peers

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.geometry.lapack import Floats
    from subspace.results.inputs import Inputs

__all__ = ["Meetings", "meetings_of"]

_PAIRED = (
    "overlap_left",
    "overlap_left_control",
    "overlap_right",
    "overlap_right_control",
)


@dataclass(frozen=True, eq=False)
class Meetings:
    """How N adapters meet, in all modules together.

    Attributes
    ----------
    inner : Frobenius inner products of their updates, (N, N)
    outputs : the same of outputs on the inputs of each task's text, (N, N, N), the task first
    paired : name -> number of every pair, (N, N), symmetric, as `PairForecast` names it
    peers : the same by formulas of other packages
    interference : numbers of the adapters of a sum -> STI over that of random directions
    """

    inner: Floats
    outputs: Floats
    paired: Mapping[str, Floats]
    peers: Mapping[str, Floats]
    interference: Mapping[frozenset[int], float]


def meetings_of(
    adapters: Mapping[str, Adapter],
    read: Sequence[Inputs],
    sets: Sequence[Sequence[int]],
    tick: Callable[[], None],
) -> Meetings:
    """Measure how adapters meet.

    Parameters
    ----------
    adapters : task -> its adapter
    read : of each task, what the modules are given on its text
    sets : numbers of the tasks of each sum whose STI is wanted
    tick : called after each sum
    """
    held = HeldAdapters(adapters)
    pairs = forecast(held).pairs
    interference = {}
    for members in sets:
        total = forecast(held, members=members).total
        interference[frozenset(members)] = _ratio(total.sti, total.sti_random)
        tick()
    paired = {
        name: _square({(pair.first, pair.second): getattr(pair, name) for pair in pairs}, len(adapters))
        for name in _PAIRED
    }
    inner, outputs = _products(held, read)
    return Meetings(inner, outputs, paired, peers(adapters), interference)


def _ratio(value: float | None, chance: float | None) -> float:
    return value / chance if value is not None and chance else math.nan


def _square(pairs: Mapping[tuple[int, int], float | None], N: int) -> Floats:
    M = np.full((N, N), np.nan)
    for (i, j), value in pairs.items():
        M[i, j] = M[j, i] = math.nan if value is None else value
    return M


def _products(held: HeldAdapters, read: Sequence[Inputs]) -> tuple[Floats, Floats]:
    """Inner products of updates, and of their outputs on each of the inputs, summed over modules."""
    N = len(held.members)
    inner, outputs = np.zeros((N, N)), np.zeros((len(read), N, N))
    for module in held.modules:
        together = joint(held.forms(module, range(N)), held.scales(module).tolist())
        inner += together.size**2 * together.inner()
        for n, each in enumerate(read):
            outputs[n] += together.size**2 * together.inner_of_outputs(each.moment(module))
    return inner, outputs
