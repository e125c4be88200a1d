"""The rows of a forecast: of a module, of all of them together, and of the pairs of adapters, from `Met`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.analysis.met_modules import SIDES, Met
from subspace.geometry.joint import cosines, energy_ratio, energy_ratio_sd
from subspace.geometry.update_agreement import isotropic_cosine_sd
from subspace.results.forecast import ModuleForecast, PairForecast

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["TOTAL", "module_row", "pair_rows", "total_row"]

TOTAL = "all modules"


def module_row(found: Met) -> ModuleForecast:
    """The row of one module."""
    if found.adapters < 2 or not found.places:
        return ModuleForecast(module=found.module, adapters=found.adapters, flags=found.flags)
    places = list(found.places)
    inner = found.inner[np.ix_(places, places)]
    own = cosines(found.inner_unscaled)
    pairs = int(np.isfinite(_upper(own)).sum())
    sd = isotropic_cosine_sd(*found.shape) / math.sqrt(pairs) if pairs else math.nan
    return ModuleForecast(
        module=found.module,
        adapters=found.adapters,
        energy_ratio=_known(energy_ratio(inner)),
        energy_ratio_sd=_known(energy_ratio_sd(inner, found.shape)),
        norm_ratio=_norm_ratio(inner.diagonal()),
        **_cosine_columns(own, sd),
        **_overlap_columns([found]),
        control_left=found.kinds["left"],
        control_right=found.kinds["right"],
        sti=found.sti,
        sti_random=found.sti_random.mean if found.sti_random else None,
        sti_random_sd=found.sti_random.sd if found.sti_random else None,
        **_output_columns([found]),
        flags=found.flags,
    )


def total_row(found: Sequence[Met], N: int) -> ModuleForecast:
    """The row of all modules together; numbers that need a scale are None where one is unknown."""
    met = [each for each in found if each.adapters and each.places]
    shared = [each for each in met if each.adapters > 1]
    inner, variance = _summed(met, N), _variance_of_cosines(met, N)
    own = cosines(inner)
    pairs = np.isfinite(_upper(own))
    sd = math.sqrt(float(_upper(variance)[pairs].sum())) / pairs.sum() if pairs.any() else math.nan
    known = all(each.sti is not None for each in met)
    return ModuleForecast(
        module=TOTAL,
        adapters=N,
        energy_ratio=_known(energy_ratio(inner)),
        energy_ratio_sd=_known(_total_energy_sd(met)) if known else None,
        norm_ratio=_norm_ratio(inner.diagonal()),
        **_cosine_columns(own, sd),
        **_overlap_columns(shared),
        control_left=_kind(shared, "left"),
        control_right=_kind(shared, "right"),
        sti=math.fsum(each.sti or 0.0 for each in shared) if known else None,
        sti_random=_over_random(shared, "mean") if known else None,
        sti_random_sd=_over_random(shared, "sd") if known else None,
        **_output_columns(met),
    )


def pair_rows(found: Sequence[Met], N: int) -> tuple[PairForecast, ...]:
    """The rows of all pairs of adapters."""
    met = [each for each in found if each.places]
    inner, outputs = _summed(met, N), _summed_outputs(met, N)
    own, functional = cosines(inner), cosines(outputs[0])
    overlaps = {
        f"overlap_{side}{end}": _mean_over([getattr(each, name)[side] for each in met], N)
        for side in SIDES
        for name, end in (("overlaps", ""), ("controls", "_control"), ("chances", "_chance"))
    }
    norms, sizes = (np.sqrt(np.maximum(each.diagonal(), 0.0)) for each in (inner, outputs[0]))
    return tuple(
        PairForecast(
            first=i,
            second=j,
            cosine=_known(own[i, j]),
            cosine_functional=_known(functional[i, j]),
            energy_ratio=_known(energy_ratio(inner[np.ix_([i, j], [i, j])])),
            norm_ratio=_known(norms[j] / norms[i]) if norms[i] > 0 else None,
            output_ratio=_known(sizes[j] / sizes[i]) if sizes[i] > 0 else None,
            **{name: _known(values[i, j]) for name, values in overlaps.items()},
        )
        for i, j in combinations(range(N), 2)
    )


def _known(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _upper(M: Floats) -> Floats:
    upper: Floats = M[np.triu_indices(len(M), 1)]
    return upper


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _mean_over(matrices: Sequence[Floats], N: int) -> Floats:
    """Mean over modules of what exists; NaN where nothing does."""
    if not matrices:
        return np.full((N, N), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a pair that no module has
        mean: Floats = np.nanmean(matrices, axis=0)
    return mean


def _norm_ratio(squares: Floats) -> float | None:
    if not squares.size or not np.isfinite(squares).all() or not squares.min() > 0:
        return None
    return math.sqrt(float(squares.max()) / float(squares.min()))


def _cosine_columns(own: Floats, sd: float) -> dict[str, Any]:
    values = _upper(own)
    values = values[np.isfinite(values)]
    if not values.size:
        return {}
    strongest = float(values[np.argmax(np.abs(values))])
    return {"cosine": float(values.mean()), "cosine_sd": sd, "cosine_strongest": strongest}


def _overlap_columns(found: Sequence[Met]) -> dict[str, Any]:
    """Means over modules and pairs on each side, and over both sides."""
    columns: dict[str, Any] = {}
    for name, end in (("overlaps", ""), ("controls", "_control"), ("chances", "_chance")):
        sides = {side: [_upper(getattr(each, name)[side]) for each in found] for side in SIDES}
        means = {side: _mean(np.concatenate(values)) if values else None for side, values in sides.items()}
        columns |= {f"overlap_{side}{end}": mean for side, mean in means.items()}
        both = [mean for mean in means.values() if mean is not None]
        columns[f"overlap{end}"] = sum(both) / len(both) if len(both) == len(SIDES) else None
    for side in SIDES:
        pairs = _mean_over([each.overlaps[side] for each in found], found[0].N) if found else np.empty((0, 0))
        values = _upper(pairs)
        columns[f"overlap_{side}_most"] = _known(np.nanmax(values)) if np.isfinite(values).any() else None
    return columns


def _output_columns(found: Sequence[Met]) -> dict[str, Any]:
    if not found or all(each.inner_outputs is None for each in found):
        return {}
    inner, variance = _summed_outputs(found, found[0].N)
    own = cosines(inner)
    pairs = np.isfinite(_upper(own))
    squares = np.outer(inner.diagonal(), inner.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = (
            math.sqrt(float(_upper(variance / squares)[pairs].sum())) / pairs.sum()
            if pairs.any()
            else math.nan
        )
    held = np.isfinite(inner.diagonal())
    return {
        "cosine_functional": _mean(_upper(own)),
        "cosine_functional_sd": _known(sd),
        "output_ratio": _norm_ratio(inner.diagonal()[held]),
        "energy_ratio_functional": _known(energy_ratio(inner[np.ix_(held, held)])) if held.any() else None,
    }


def _kind(found: Sequence[Met], side: str) -> str | None:
    kinds = {kind for each in found if (kind := each.kinds[side]) is not None}
    return " and ".join(sorted(kinds)) or None


def _over_random(found: Sequence[Met], name: str) -> float:
    values = [getattr(each.sti_random, name) for each in found if each.sti_random is not None]
    return math.fsum(values) if name == "mean" else math.hypot(*values)


# --- sums over modules, each over the largest size squared so that nothing leaves the range of float64


def _relative(found: Sequence[Met]) -> list[float]:
    largest = max((each.size for each in found), default=0.0)
    return [each.size / largest if largest else 0.0 for each in found]


def _summed(found: Sequence[Met], N: int) -> Floats:
    """Inner products of all modules together; NaN of an adapter one of whose scales is unknown."""
    total = np.zeros((N, N))
    for each, size in zip(found, _relative(found), strict=True):
        held = np.ix_(each.places, each.places)
        total[held] += size**2 * each.inner[held]
    return total


def _summed_outputs(found: Sequence[Met], N: int) -> tuple[Floats, Floats]:
    """The same of outputs, and the variance of each sum; NaN where no module has measured inputs or a scale lacks."""
    total, variance = np.zeros((N, N)), np.zeros((N, N))
    some = False
    for each, size in zip(found, _relative(found), strict=True):
        if each.inner_outputs is None or each.variance_outputs is None:
            continue
        some = True
        held = np.ix_(each.places, each.places)
        unknown = np.where(np.isfinite(each.inner[held]), 0.0, np.nan) if len(found) > 1 else 0.0
        total[held] += size**2 * each.inner_outputs[held] + unknown
        variance[held] += size**4 * each.variance_outputs[held] + unknown
    return (total, variance) if some else (np.full((N, N), np.nan), np.full((N, N), np.nan))


def _variance_of_cosines(found: Sequence[Met], N: int) -> Floats:
    """Of the cosine of every pair in all modules together, for isotropic directions."""
    norms = np.zeros((N, N))
    total = np.zeros(N)
    for each, size in zip(found, _relative(found), strict=True):
        squares = np.zeros(N)
        squares[list(each.places)] = size**2 * each.inner.diagonal()[list(each.places)]
        norms += np.outer(squares, squares) / (each.shape[0] * each.shape[1])
        total += squares
    with np.errstate(divide="ignore", invalid="ignore"):
        variance: Floats = norms / np.outer(total, total)
    return variance


def _total_energy_sd(found: Sequence[Met]) -> float:
    parts, total = [], 0.0
    for each, size in zip(found, _relative(found), strict=True):
        inner = size**2 * each.inner[np.ix_(each.places, each.places)]
        energy = float(inner.trace())
        total += energy
        if energy > 0:
            parts.append(energy * energy_ratio_sd(inner, each.shape))
    return math.hypot(*parts) / total if total > 0 else math.nan
