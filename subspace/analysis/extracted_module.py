"""The change of one weight as factors of a rank, and what they leave out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.analysis.against_base import Site
from subspace.analysis.difference_rows import Difference, Survey, survey
from subspace.analysis.leading_change import Change, leading_change
from subspace.analysis.tuned_model import full_name, tuned_key
from subspace.checkpoints.narrowing import narrow
from subspace.checkpoints.widening import widen
from subspace.flags import Flag
from subspace.results.extraction import ModuleExtraction

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Wanted", "extracted", "without_numbers"]

_MOST = 256  # directions that are looked for where the rank is that of the change
_SHOWN = 8  # singular values after the last one kept that a result has
_UNMOVED = 0.5  # share of the numbers of a weight, above which it is said
_ROUNDING = 1e-12  # of a share that is computed in float64


class Wanted(NamedTuple):
    """How much of a change is kept: `rank` directions at most, or an `energy` at least; of neither all directions."""

    rank: int | None
    energy: float | None
    dtype: str


def extracted(site: Site, *, wanted: Wanted, without: Collection[str]) -> tuple[ModuleExtraction, ...]:
    """A module that changed; nothing of one that did not, or of one of those in `without`, which can be no LoRA."""
    name, weight, tensors = site.update.module, site.weight, site.adapter.tensors
    if name in without or tensors is None:
        return ()
    D = Difference(tensors.stored(tuned_key(name, tensors.layout), weight.stored.shape), weight.stored)
    found = survey(D)
    if found.norm == 0:
        return ()
    change = leading_change(D, found, most=wanted.rank or _MOST, energy=wanted.energy)
    k, error = _kept(D, found, change, wanted)
    row = replace(_row(site), **_numbers(found, change, k, error, wanted))
    if not k:
        return (row,)
    P, Q = _factors(change, k, wanted.dtype)
    A, B = (P.T, Q.T) if weight.transposed else (Q, P)
    return (replace(row, A=A, B=B),)


def without_numbers(site: Site) -> tuple[ModuleExtraction]:
    """The row of a module with a number that is not finite."""
    return (replace(_row(site), flags=(Flag.NOT_FINITE,)),)


def _row(site: Site) -> ModuleExtraction:
    return ModuleExtraction(
        module=full_name(site.update.module, site.weight.key),
        kind=site.update.kind,
        d_out=site.update.d_out,
        d_in=site.update.d_in,
        tuned_name=site.update.module,
        base_key=site.weight.key,
    )


def _kept(D: Difference, found: Survey, change: Change, wanted: Wanted) -> tuple[int, float]:
    """How many directions are kept, and the relative error of their factors as they are stored."""

    def error(k: int) -> float:
        return D.distance(*_factors(change, k, wanted.dtype)) / found.norm if k else 1.0

    if wanted.energy is None:
        k = min(change.above, wanted.rank or _MOST)
        return k, error(k)
    shares = np.cumsum((change.S[: change.above] / found.norm) ** 2)
    k = min(change.above, int(np.searchsorted(shares, wanted.energy)) + 1)
    left = error(k)
    while k < change.above and 1 - left**2 < wanted.energy * (1 - _ROUNDING):
        by_rounding = shares[k - 1] - (1 - left**2)
        # where rounding the factors alone loses too much, no rank below the full one is better
        k = change.above if by_rounding > 1 - wanted.energy else k + 1
        left = error(k)
    return k, left


def _factors(change: Change, k: int, dtype: str) -> tuple[Floats, Floats]:
    """``U sqrt(S)`` and ``sqrt(S) V.T`` of the first directions, as they will be stored."""
    root = np.sqrt(change.S[:k])
    P, Q = change.U[:, :k] * root, root[:, None] * change.V[:, :k].T
    return _stored(P, dtype), _stored(Q, dtype)


def _stored(M: Floats, dtype: str) -> Floats:
    stored: Floats = widen(narrow(M, dtype), dtype).astype(np.float64)
    return stored


def _numbers(found: Survey, change: Change, k: int, error: float, wanted: Wanted) -> dict[str, Any]:
    return {
        "rank": k,
        "recovered_rank": change.above if change.complete else None,
        "error": error,
        "energy": max(0.0, 1 - error**2),
        "norm": found.norm,
        "change": found.norm / found.norm_base if found.norm_base > 0 else None,
        "floor": change.floor,
        "unmoved": found.unmoved,
        "sigma": change.S[: max(k, change.above) + _SHOWN],
        "flags": _flags(found, change, k, error, wanted),
    }


def _flags(found: Survey, change: Change, k: int, error: float, wanted: Wanted) -> tuple[Flag, ...]:
    flags = []
    if not change.complete or change.above > min(len(change.U), len(change.V)) // 2:
        flags.append(Flag.NO_LOW_RANK)
    if not change.above:
        flags.append(Flag.ROUNDING_ONLY)
    if found.unmoved > _UNMOVED:
        flags.append(Flag.UNMOVED)
    if change.above and wanted.energy is not None and 1 - error**2 < wanted.energy * (1 - _ROUNDING):
        by_factors = change.energy(found.norm) >= wanted.energy
        flags.append(Flag.ENERGY_BELOW_WANTED if by_factors else Flag.ENERGY_IN_ROUNDING)
    return tuple(flags)
