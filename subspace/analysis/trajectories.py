"""Trajectories of single modules and of all together, from what was measured of the modules of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.analysis.step_controls import StepControl, StepControls, mean_of, similarities
from subspace.geometry.trajectory import born, captured, isotropic
from subspace.geometry.update_agreement import isotropic_cosine_sd
from subspace.results.trajectory import ALL, Birth, Trajectory

if TYPE_CHECKING:
    from subspace.analysis.module_steps import Key, ModuleSteps, SidePath
    from subspace.analysis.step_numbers import Numbers
    from subspace.geometry.lapack import Floats

__all__ = ["LEVEL", "MeasuredSide", "Sized", "measured_sides", "module_trajectories", "total_trajectories"]

LEVEL = 0.01  # of the test that a direction is there

_COLUMNS = ("to_final", "to_next", "from_start")


@dataclass(frozen=True, eq=False)
class MeasuredSide:
    """One side of one module: everything but its control.

    Attributes
    ----------
    values : column -> (T,), NaN where there is none
    births : of the leading directions of the last checkpoint
    """

    module: str
    side: str
    init: str
    d: int
    values: Mapping[str, Floats]
    births: tuple[Birth, ...]


@dataclass(frozen=True, eq=False)
class Sized:
    """The updates of one module as wholes, with the intruders that they make."""

    module: str
    numbers: Numbers
    cosine_sd: float
    intruders: tuple[int | None, ...]
    flags: tuple[Any, ...]

    @classmethod
    def of(cls, found: ModuleSteps, intruders: tuple[int | None, ...] = ()) -> Sized:
        """Of what was measured of a module."""
        sd = isotropic_cosine_sd(*found.shape)
        return cls(found.module, found.numbers, sd, intruders, found.flags)


def measured_sides(found: ModuleSteps) -> list[MeasuredSide]:
    """Every side of a module: phi with the last, the next and the start, isotropic levels, and births."""
    return [_measured(found, key, path) for key, path in found.sides.items()]


def _measured(found: ModuleSteps, key: Key, path: SidePath) -> MeasuredSide:
    cut, d = path.cut(), path.d
    own = similarities(cut, cut)
    counts, nexts = cut.counts, np.append(cut.counts[1:], 0)
    levels = {
        "to_final": isotropic(counts, cut.counts[-1:], d),
        "to_next": isotropic(counts, nexts, d),
        "from_start": isotropic(counts, cut.start_counts, d),
    }
    values: dict[str, Floats] = dict(zip(_COLUMNS, own, strict=True))
    values |= {f"{name}_isotropic": level.mean for name, level in levels.items()}
    values["to_final_isotropic_sd"] = levels["to_final"].sd
    return MeasuredSide(found.module, *key, d, values, _births(found, key, path))


def _births(found: ModuleSteps, key: Key, path: SidePath) -> tuple[Birth, ...]:
    k = path.leading
    if not k:
        return ()
    directions = path.path[-1, :k]
    steps = born(captured(path.path, directions), path.counts, path.d, level=LEVEL)
    halves = _halves(found.numbers.strength, k) if key[0] in ("left", "right") else [None] * k
    return tuple(Birth(n + 1, float(path.energy[n]), int(steps[n]), halves[n]) for n in range(k))


def _halves(strength: Floats, k: int) -> list[int | None]:
    """First checkpoint from which on delta_W has half of its final strength along each direction."""
    if strength.shape[1] < k:
        return [None] * k
    below = ~(strength[:, :k] >= 0.5)
    below[-1] = False
    return [int(n) for n in np.where(below.any(axis=0), len(below) - np.argmax(below[::-1], axis=0), 0)]


def module_trajectories(
    sides: Sequence[MeasuredSide], sizes: Mapping[str, Sized], controls: StepControls
) -> tuple[Trajectory, ...]:
    """One trajectory for each side of each module."""
    return tuple(
        _trajectory(
            each.module,
            (each.side, each.init),
            each.d,
            len(each.births),
            each.values,
            controls.of(each.module, each.side, each.init),
            births=each.births,
            sized=sizes[each.module],
            whole=_of_one(sizes[each.module]),
        )
        for each in sides
    )


def _trajectory(
    module: str,
    key: Key,
    d: int | None,
    directions: int,
    values: Mapping[str, Floats],
    control: StepControl | None,
    *,
    births: tuple[Birth, ...] = (),
    born: tuple[int, ...] | None = None,
    sized: Sized | None = None,
    whole: Mapping[str, Any],
    intruders: tuple[int | None, ...] = (),
) -> Trajectory:
    steps = len(values["to_final"])
    none = np.full(steps, np.nan)
    beside = dict(zip(_COLUMNS, (none,) * 3 if control is None else control.mean, strict=True))
    moved = whole["moved"].get(key[0]) if key[1] == "kept" else None
    return Trajectory(
        module=module,
        side=key[0],
        init=key[1],
        d=d,
        directions=directions,
        **{name: _plain(each) for name, each in values.items()},
        **{f"{name}_control": _plain(each) for name, each in beside.items()},
        moved=_plain(none if moved is None else moved),
        cosine=_plain(whole["cosine"]),
        cosine_isotropic_sd=whole["cosine_isotropic_sd"],
        norm=_plain(whole["norm"]),
        born=_cumulated(births, steps) if born is None else born,
        births=births,
        intruders=intruders if sized is None else sized.intruders,
        control=None if control is None else control.kind,
        flags=() if sized is None else sized.flags,
    )


def _cumulated(births: Sequence[Birth], steps: int) -> tuple[int, ...]:
    return tuple(sum(birth.born <= n for birth in births) for n in range(steps))


def _of_one(sized: Sized) -> dict[str, Any]:
    numbers = sized.numbers
    signs = _signs(numbers.scale)
    with np.errstate(over="ignore"):
        norm = numbers.norm * np.abs(numbers.scale)
    return {
        "moved": numbers.moved,
        "cosine": numbers.cosine * signs,
        "cosine_isotropic_sd": sized.cosine_sd,
        "norm": norm,
    }


def _signs(scale: Floats) -> Floats:
    """Of each scale beside the last one; an unknown scale counts as positive."""
    sign = np.where(np.isnan(scale), 1.0, np.sign(scale))
    return np.asarray(sign * sign[-1])


def total_trajectories(
    sides: Sequence[MeasuredSide], sizes: Mapping[str, Sized], modules: Sequence[Trajectory]
) -> tuple[Trajectory, ...]:
    """The mean over all modules, for each side: of each checkpoint over those that have a value there."""
    whole, intruders = _of_all(list(sizes.values())), _intruders(list(sizes.values()))
    found = []
    for key in dict.fromkeys((each.side, each.init) for each in sides):
        own = [each for each in sides if (each.side, each.init) == key]
        columns = {name: mean_of(np.stack([each.values[name] for each in own])) for name in own[0].values}
        sds = np.stack([each.values["to_final_isotropic_sd"] for each in own])
        there = np.isfinite(sds).sum(axis=0)
        columns["to_final_isotropic_sd"] = np.where(
            there > 0, np.sqrt(np.nansum(sds**2, axis=0)) / np.maximum(there, 1), np.nan
        )
        steps = len(columns["to_final"])
        births = [birth for each in own for birth in each.births]
        found.append(
            _trajectory(
                ALL, key, None, len(births), columns,
                _mean_control([each for each in modules if (each.side, each.init) == key]),
                born=_cumulated(births, steps), whole=whole, intruders=intruders,
            )
        )  # fmt: skip
    return tuple(found)


def _mean_control(modules: Sequence[Trajectory]) -> StepControl | None:
    """Mean over the modules that have a control of the kind that most have."""
    from subspace.analysis.step_controls import Similarities

    kinds = [each.control for each in modules if each.control is not None]
    if not kinds:
        return None
    kind = max(sorted(set(kinds)), key=kinds.count)
    own = [each for each in modules if each.control == kind]
    columns = ([_floats(getattr(each, f"{name}_control")) for each in own] for name in _COLUMNS)
    return StepControl(kind, Similarities(*(mean_of(np.stack(column)) for column in columns)))  # type: ignore[arg-type]


def _of_all(sizes: Sequence[Sized]) -> dict[str, Any]:
    """Norm and cosine of all modules together, each update with its scale; without any scale they count as equal."""
    norm = np.stack([each.numbers.norm for each in sizes])
    scale = np.stack([each.numbers.scale for each in sizes])
    known = np.isfinite(scale) | ~np.isfinite(norm)
    unit = np.where(np.isfinite(scale), scale, np.nan if known.any() and not known.all() else 1.0)
    with np.errstate(over="ignore"):
        sizes_ = np.where(np.isfinite(norm), norm, 0.0) * unit
    cosines = np.stack(
        [np.where(np.isfinite(each.numbers.cosine), each.numbers.cosine, 0.0) for each in sizes]
    )
    largest = np.abs(sizes_).max(initial=0.0)  # so that no square leaves the range of float64
    units = sizes_ / largest if 0 < largest < np.inf else sizes_
    whole, last = np.linalg.norm(units, axis=0), units[:, -1:]
    with np.errstate(all="ignore"):
        weights = units * last / (whole * np.linalg.norm(last))
        cosine = np.where(whole > 0, (weights * cosines).sum(axis=0), np.nan)
    sds = np.array([each.cosine_sd for each in sizes])
    sd = float(np.linalg.norm(np.nan_to_num(weights[:, -1]) * sds))
    moved = {
        side: mean_of(np.stack([each.numbers.moved[side] for each in sizes if side in each.numbers.moved]))
        for side in "ab"
        if any(side in each.numbers.moved for each in sizes)
    }
    return {
        "moved": moved,
        "cosine": np.clip(cosine, -1, 1),
        "cosine_isotropic_sd": sd if math.isfinite(sd) and sd else None,
        "norm": whole * (largest or 1.0) if known.all() else np.full(len(whole), np.nan),
    }


def _intruders(sizes: Sequence[Sized]) -> tuple[int | None, ...]:
    counted = [each.intruders for each in sizes if each.intruders]
    return tuple(
        sum(n for n in column if n is not None) if any(n is not None for n in column) else None
        for column in zip(*counted, strict=True)
    )


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values])


def _plain(values: Floats) -> tuple[float | None, ...]:
    return tuple(float(value) if np.isfinite(value) else None for value in values)
