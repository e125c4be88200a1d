"""All pairs of a library as the rows of its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry.library_null import FEWEST, library_null
from subspace.results.adapter_pairs import PairTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.pair_results import AllPairs, SidePairs

__all__ = ["METRICS", "pair_table"]

METRICS = ("chordal", "projector", "geodesic")
_MOST_RANKED = 2e8  # entries of the matrices that p-values are ranks in


def pair_table(
    found: AllPairs,
    *,
    metric: str,
    leading: tuple[int, int] | None,
    paths: Sequence[str],
    names: Sequence[str],
    shared_start: NDArray[np.bool_],
) -> tuple[PairTable, float | None]:
    """Rows of pairs that have a module in common with directions on a side; and the least p-value that one can have.

    Parameters
    ----------
    metric : one of `METRICS`
    leading : the (i, j) of the column phi_leading
    paths, names : of the adapters
    shared_start : which pairs began at one start, shape (pairs,)
    """
    sides = list(found.sides)
    where = [np.nonzero(found.sides[side].modules > 0) for side in sides]
    groups, pairs = (np.concatenate([place[n] for place in where]) for n in (0, 1))
    numbers: dict[str, list[Any]] = {}
    floors: list[float] = []
    for side, place in zip(sides, where, strict=True):
        p, floor = _p_values(found, found.sides[side])
        floors += [] if floor is None else [floor]
        for name, values in _numbers(found, found.sides[side], metric, leading, p).items():
            numbers.setdefault(name, []).append(values[place])
    total = found.by == "total"
    table = PairTable(
        paths=paths,
        names=names,
        first=found.first[pairs],
        second=found.second[pairs],
        sides=sides,
        side=np.repeat(np.arange(len(sides), dtype=np.int8), [len(place[0]) for place in where]),
        parts=[""] if total else list(found.groups),
        part=groups.astype(np.int32),
        modules=np.concatenate([found.sides[s].modules[p] for s, p in zip(sides, where, strict=True)]),
        numbers={name: np.concatenate(values) for name, values in numbers.items()},
        shared_start=shared_start[pairs],
    )
    return table, min(floors, default=None)


def _numbers(
    found: AllPairs,
    side: SidePairs,
    metric: str,
    leading: tuple[int, int] | None,
    p: NDArray[np.float64] | None,
) -> dict[str, NDArray[np.float64]]:
    """Columns of one side, (groups, pairs)."""
    missing = np.full(side.phi_full.shape, np.nan)
    distance = getattr(side, metric)
    return {
        "cosine": missing if found.cosine is None else found.cosine,
        "phi_full": side.phi_full,
        "chance": side.chance,
        "phi_control": side.phi_control,
        "p_library": missing if p is None else p,
        "distance": missing if distance is None else distance,
        **({} if leading is None else {"phi_leading": side.phi[leading]}),
    }


def _p_values(found: AllPairs, side: SidePairs) -> tuple[NDArray[np.float64] | None, float | None]:
    """p-values of every pair among the pairs of its adapters, (groups, pairs); None below 39 adapters."""
    n = len(found.members)
    if n < FEWEST or side.phi_full.shape[0] * n**2 > _MOST_RANKED:
        return None, None
    p = np.full(side.phi_full.shape, np.nan)
    floors = []
    for group, phi in enumerate(side.phi_full):
        null = library_null(found.square(phi))
        if null.p is not None:
            p[group] = null.p[found.first, found.second]
            floors += [] if null.floor is None else [null.floor]
    return (p, min(floors)) if floors else (None, None)
