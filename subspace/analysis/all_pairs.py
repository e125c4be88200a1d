"""All pairs of the members of a collection: overlap, distances, cosine and start, in total, by layer or by module."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from subspace.adapters.naming.same_input import place_of
from subspace.analysis.pair_blocks import Asked, Sent, measured
from subspace.analysis.pair_list import pair_list
from subspace.analysis.pair_plan import crossings_of, tasks_of
from subspace.analysis.pair_results import AllPairs, By, SidePairs
from subspace.analysis.pair_sums import Sums
from subspace.analysis.workers import in_order
from subspace.errors import ValueRangeError
from subspace.geometry.stacked_spans import SIDES, Side
from subspace.text import listed, shown

if TYPE_CHECKING:
    from subspace.analysis.collection import Collection
    from subspace.analysis.pair_plan import Shapes
    from subspace.geometry.lapack import Floats

__all__ = ["BY", "AllPairs", "SidePairs", "all_pairs"]

BY: tuple[By, ...] = ("total", "layer", "module")


def all_pairs(
    collection: Collection,
    *,
    by: By = "total",
    sides: Sequence[Side] = ("a", "b"),
    leading: Sequence[tuple[int, int]] = (),
    controls: str = "all",
    geodesic: bool = False,
    cosine: bool = True,
    z: bool = True,
    new: Sequence[int] | None = None,
    jobs: int = 1,
    precision: Literal["float32", "float64"] = "float32",
    panel: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> AllPairs:
    """Compare all pairs of the members of a collection, each on the modules that both have.

    Parameters
    ----------
    collection : Collection
        With several `jobs` it goes to another process with every task: it should open nothing before it is asked.
    by : {"total", "layer", "module"}
        Over what the numbers of the modules are reduced.
    sides : sequence of {"a", "b", "left", "right"}
        Whose spans are compared: rows of A, columns of B, left and right singular vectors of delta_W. Where B and A
        have full rank "right" costs nothing beside "a", nor "left" beside "b".
    leading : sequence of (i, j)
        Where phi(i, j) is wanted, each at least 1.
    controls : {"all", "same-input", "layers", "none"}
        Which matched controls there are; "all" takes those of the same input where there are any.
    geodesic, cosine, z : bool
        Whether the geodesic distance, the cosine and the alignment of rows are wanted; the first costs several times as
        much as all the rest.
    new : sequence of int, optional
        Numbers of the members that every pair has at least one of: what one more adapter costs, O(N), not O(N^2).
    jobs : int
        Number of processes; the back end of joblib that is in place is used, see `analysis.backends`.
    precision : {"float32", "float64"}
        Type that the spans are multiplied in.
    panel : int
        Most members in a panel. A process holds two panels of a few modules at a time.
    progress : callable, optional
        Called with the number of tasks that are done, and of all tasks.

    Raises
    ------
    ValueRangeError
        If an argument is not one of its values, or a number of `new` or of `leading` is out of range.
    ShapeError
        If a module has different dimensions in two members.

    Notes
    -----
    Time is about ``n^2 r^2 (d_in + d_out) / 2`` multiplications for each module, two or three times that with controls;
    memory is about 450 bytes for each pair and group, and two panels: ``8 r (d_in + d_out)`` bytes a member
    for each of some four modules, three times as much for the one that is read.
    Accuracy is that of `geometry.all_pairs.module_pairs`. Tasks and the order of sums do not depend on `jobs`: results
    are the same bit by bit for every number of processes with one BLAS thread each, and within 1e-6 otherwise.
    """
    modules, n = tuple(collection.modules), len(collection.members)
    if precision not in ("float32", "float64"):
        raise ValueRangeError(
            f"Unknown precision {shown(repr(precision))}: `precision` is float32 or float64"
        )
    asked = Asked(_sides(sides), _both_ways(leading), geodesic, cosine, z, precision)
    pairs = pair_list(n, _numbers(new, n))
    holders = {module: tuple(collection.holders(module)) for module in modules}
    shapes = _shapes(collection, holders)
    crossings = crossings_of(shapes, holders, controls)
    groups, group_of = _groups(modules, by)
    sums = Sums(
        pairs,
        len(groups),
        group_of,
        _weights(collection, holders, group_of, n),
        shapes,
        asked,
        repeats=by == "module",
    )
    tasks = tasks_of(modules, crossings, n=n, new=pairs.new.tolist(), panel=_at_least_one(panel, "panel"))
    source: Any = collection
    if _at_least_one(jobs, "jobs") > 1 and len(tasks) > 1:
        source = Sent(secrets.token_hex(8), collection)
    for done, results in enumerate(in_order(partial(measured, source, asked), tasks, jobs=jobs), start=1):
        for each in results:
            sums.add(each)
        if progress is not None:
            progress(done, len(tasks))
    kinds = {module: c.kind for c in crossings for module in c.reads}
    return _result(collection, by, groups, group_of, kinds, sums)


def _result(
    collection: Collection,
    by: By,
    groups: tuple[str, ...],
    group_of: dict[str, int],
    kinds: Mapping[str, str],
    sums: Sums,
) -> AllPairs:
    asked, combined = sums.asked, sums.combined() if sums.asked.z else None
    cosine = sums.cosine() if asked.cosine else (None, None)
    return AllPairs(
        members=tuple(collection.members),
        by=by,
        groups=groups,
        group_of=group_of,
        control_kinds=dict(kinds),
        first=sums.pairs.first,
        second=sums.pairs.second,
        modules=sums.count("modules"),
        sides={side: _of_side(sums, side) for side in asked.sides},
        cosine=cosine[0],
        cosine_isotropic_sd=cosine[1],
        z=combined and combined[0],
        z_largest=combined and combined[1],
        z_r=combined and combined[2],
    )


def _of_side(sums: Sums, side: Side) -> SidePairs:
    asked = sums.asked
    return SidePairs(
        modules=sums.count(side, "phi_full"),
        phi_full=sums.mean(side, "phi_full"),
        chance=sums.mean(side, "chance"),
        phi_control=sums.mean(side, "control"),
        chordal=np.sqrt(sums.mean(side, "chordal")),
        projector=np.sqrt(sums.mean(side, "projector")),
        geodesic=np.sqrt(sums.mean(side, "geodesic")) if asked.geodesic else None,
        phi={(i, j): sums.mean(side, "phi", i, j) for i, j in asked.leading},
        phi_chance={(i, j): sums.mean(side, "phi_chance", i, j) for i, j in asked.leading},
    )


def _sides(sides: Sequence[Side]) -> tuple[Side, ...]:
    unknown = [side for side in sides if side not in SIDES]
    if unknown or not sides:
        raise ValueRangeError(
            f"Unknown side {shown(repr(unknown[0]))}: `sides` are some of {', '.join(SIDES)}"
            if unknown
            else f"No side to compare: give `sides`, some of {', '.join(SIDES)}"
        )
    return tuple(dict.fromkeys(sides))


def _both_ways(leading: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    for i, j in leading:
        if i < 1 or j < 1:
            raise ValueRangeError(
                f"No leading directions: i={i}, j={j}; give i and j of at least 1 as `leading`"
            )
    return tuple(dict.fromkeys(pair for i, j in leading for pair in ((i, j), (j, i))))


def _numbers(new: Sequence[int] | None, n: int) -> Sequence[int] | None:
    wrong = [m for m in new or () if not 0 <= m < n]
    if wrong:
        raise ValueRangeError(
            f"No such member: {listed([str(m) for m in wrong])} of {n}; `new` are numbers from 0"
        )
    return new


def _at_least_one(value: int, name: str) -> int:
    if value < 1:
        what = "processes" if name == "jobs" else "members in a panel"
        raise ValueRangeError(f"Too few {what}: {value}; give `{name}` of at least 1")
    return value


def _shapes(collection: Collection, holders: Mapping[str, Sequence[int]]) -> Shapes:
    """(d_out, d_in) of every module, as its first holder has it."""
    found = {}
    for module, numbers in holders.items():
        form = collection.forms(module, numbers[:1])[0]
        found[module] = form.left.shape[1], form.right.shape[1]
    return found


def _groups(modules: Sequence[str], by: By) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the groups, and the number of the group of every module."""
    if by not in BY:
        raise ValueRangeError(f"Cannot reduce by {shown(repr(by))}: `by` is one of {', '.join(BY)}")
    if by == "total":
        return ("total",), dict.fromkeys(modules, 0)
    keys = [(module,) if by == "module" else place_of(module).layer[:1] for module in modules]
    unique = list(dict.fromkeys(keys)) if by == "module" else sorted(set(keys))
    number = {key: n for n, key in enumerate(unique)}
    names = tuple(str(key[0]) if key else "" for key in unique)
    return names, {module: number[key] for module, key in zip(modules, keys, strict=True)}


def _weights(
    collection: Collection, holders: Mapping[str, Sequence[int]], group_of: Mapping[str, int], n: int
) -> dict[str, Floats]:
    """Scale of every module in all members: 1 where none of its group is known, NaN where some are and some are not."""
    scales = {module: np.zeros(n) for module in holders}
    unknown, known = (np.zeros((max(group_of.values(), default=0) + 1, n), dtype=bool) for _ in range(2))
    for module, numbers in holders.items():
        at, group = np.asarray(numbers, dtype=np.intp), group_of[module]
        scales[module][at] = values = np.asarray(collection.scales(module), dtype=np.float64)
        unknown[group, at] |= np.isnan(values)
        known[group, at] |= ~np.isnan(values)
    for module, values in scales.items():
        mixed = (unknown & known)[group_of[module]]
        values[:] = np.where(mixed, np.nan, np.where(np.isnan(values), 1.0, values))
    return scales
