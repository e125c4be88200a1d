"""Does an update amplify what the base already emphasises? Section 7.3 and table 7 of the LoRA paper.

``amplification = ||delta_W||_F / ||U_r^T W V_r||_F`` with U_r, V_r the top r singular vectors of delta_W itself, next
to the same projection with W's own top r and with isotropic random frames. How to read it: with random frames the
*ratio* is even larger, because its denominator is smaller. The evidence is that delta_W's projection is above the
random one (``over_random``: its directions are in W) and far below W's own (they are not those W emphasises).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from subspace.adapters import dora
from subspace.adapters.base.weights import BaseWeight
from subspace.adapters.place import place
from subspace.adapters.update import LowRankUpdate, Update
from subspace.analysis.against_base import Against, Scope, Site, against_base
from subspace.analysis.frames import dense_noise
from subspace.analysis.resolve import Loading
from subspace.analysis.what_is_left import require_store, with_what_is_left
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.geometry import chance, factored
from subspace.geometry.frobenius import frobenius
from subspace.geometry.rounding import float64_noise
from subspace.geometry.topk import Leading, leading, project
from subspace.results.amplification import Amplification, ModuleAmplification, RankAmplification
from subspace.text import listed

__all__ = ["amplify"]

_SETTLED = 1e-5  # an estimated error of a dense delta_W's leading part above this is flagged
_DENSE_TOL, _DENSE_PASSES = 2e-7, 60  # of the directions of a dense delta_W


def amplify(
    base: Any,
    delta: Any,
    *,
    ranks: Sequence[int] | None = None,
    tol: float | None = None,
    store: str | None = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
    layers: Sequence[int] = (),
    jobs: int = 1,
    device: str = "cpu",
    resume: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Amplification:
    """Amplification factors of an update over its base, with those of W's own directions and of isotropic random ones.

    Parameters
    ----------
    base : base weights, as `load_base` takes them
    delta : the adapter, as `load_adapter` takes it
    ranks : how many of delta_W's leading directions; by default its rank (4 and 64 for a dense delta_W)
    tol : estimated relative error at which the search for W's own directions stops; by default 3e-4, and 1e-3
        for more than 16 directions
    store : also how much of delta_W is left when it is merged and stored in this type, as `visibility` takes it; that
        is about as much work as the rest at r = 8, and is not done by default
    scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    modules, layers, jobs, device, resume : which modules are measured and how, as `Scope` takes them
    progress : called with (modules done, modules in all)

    Raises
    ------
    InconclusiveError : the base has no module of the adapter, or none has numbers: all are untrained or not finite
    ShapeError : a base weight does not have the shape of its update
    SubspaceError : a file cannot be read

    References
    ----------
    Hu et al., arXiv 2106.09685v2, section 7.3, table 7 and appendix H.4.

    Examples
    --------
    If delta_W is twice the leading part of W, the factor is 2.

    >>> W = np.diag([3.0, 2.0, 1.0])
    >>> result = amplify(W, {"A": np.eye(1, 3), "B": 6 * np.eye(3, 1)}, scale=1.0)
    >>> round(result.modules[0].ranks[0].amplification, 10)
    2.0
    """
    if ranks is not None and (not ranks or min(ranks) < 1):
        raise ValueRangeError(
            f"Invalid ranks ({listed(ranks)}): give `ranks` whole numbers of at least 1, such as 4, 64"
        )
    if store is not None:
        require_store(store)
    found = against_base(
        base,
        delta,
        partial(_rows, wanted=ranks, tol=tol, store=store),
        without_numbers=_without_numbers,
        loading=Loading(None, scale, adapter_name, enable_lora, rename, layout),
        scope=Scope(modules, layers, jobs, device, resume),
        progress=progress,
    )
    return _concluded(found)


def _rows(
    site: Site, *, wanted: Sequence[int] | None, tol: float | None, store: str | None
) -> tuple[ModuleAmplification]:
    row = _module(site, _wanted(wanted, site.update), tol)
    row = replace(row, norm_whole=dora.norm_whole(site.update, site.adapter, site.weight))
    return (with_what_is_left(row, site, store),)


def _without_numbers(site: Site) -> tuple[ModuleAmplification]:
    flags = (*site.update.flags, Flag.NOT_FINITE)
    return (_row(site.weight, site.update, norm_W=None, norm=None, ranks=(), flags=flags),)


def _wanted(ranks: Sequence[int] | None, update: Update) -> list[int]:
    if ranks is None:
        return [update.r] if isinstance(update, LowRankUpdate) else [4, 64]
    return sorted(set(ranks))


def _module(site: Site, wanted: list[int], tol: float | None) -> ModuleAmplification:
    weight, update = site.weight, site.update
    mine = _directions(update, max(wanted))
    W = weight.streamed()
    ranks = sorted({min(r, mine.rank) for r in wanted}) if mine.rank else []
    own = site.leading(max(ranks, default=1), tol=tol, W=W)
    # U^T W V; a weight stored (d_in, d_out) gives its transpose
    P = project(W, mine.V, mine.U).T if weight.transposed else project(W, mine.U, mine.V)
    norm = _scaled(update, mine.norm)
    lowered = _lower(mine.rank, wanted)
    rows = tuple(_rank(r, P, own, norm, update, lowered if r == mine.rank else ()) for r in ranks)
    flags = (*mine.flags, *_missing(update, own, rows, norm), *lowered)
    return _row(weight, update, norm_W=own.norm, norm=norm, ranks=rows, flags=flags)


def _row(
    weight: BaseWeight,
    update: Update,
    *,
    norm_W: float | None,
    norm: float | None,
    ranks: tuple[RankAmplification, ...],
    flags: tuple[Flag, ...],
) -> ModuleAmplification:
    return ModuleAmplification(
        module=update.module,
        d_out=update.d_out,
        d_in=update.d_in,
        scale=update.scale.value,
        scale_source=update.scale.source,
        norm_W=norm_W,
        norm_delta_W=norm,
        ranks=ranks,
        base_key=weight.key,
        orientation=weight.orientation,
        base_stored_as=weight.quantised or None,
        flags=flags,
    )


def _missing(
    update: Update, own: Leading, rows: Sequence[RankAmplification], norm: float | None
) -> Iterator[Flag]:
    """Why a number does not exist."""
    if own.norm == 0:
        yield Flag.BASE_ZERO
    elif any(row.proj_delta_W == 0 for row in rows):
        yield Flag.PROJECTION_ZERO
    if update.scale.value is None:
        yield Flag.SCALE_UNKNOWN
    elif norm is None:
        yield Flag.OVERFLOW


def _lower(rank: int, wanted: list[int]) -> tuple[Flag, ...]:
    return (Flag.RANK_BELOW_WANTED,) if 0 < rank < max(wanted) else ()


@dataclass(frozen=True)
class _Directions:
    """Leading singular directions of delta_W (without its scale), its whole norm, and flags."""

    U: Any
    V: Any
    rank: int
    norm: float
    flags: tuple[Flag, ...]


def _directions(update: Update, most: int) -> _Directions:
    """Singular directions of delta_W: all of a low-rank one, the first `most` of a dense one."""
    if isinstance(update, LowRankUpdate):
        U, S, Vh = factored.svd(update.B, update.A)
        return _Directions(U, Vh.T, len(S), frobenius(S), _flags(update, len(S)))
    M = update.matrix.load()
    found = leading(M, min(most, update.r), tol=_DENSE_TOL, max_passes=_DENSE_PASSES)
    noise = max(dense_noise(update, M), float64_noise(M.shape, found.S.max(initial=0.0)))
    rank = int(np.count_nonzero(noise < found.S))
    flags = _flags(update, rank) + (() if found.error <= _SETTLED else (Flag.DIRECTIONS_ESTIMATED,))
    return _Directions(found.U[:, :rank], found.V[:, :rank], rank, found.norm, flags)


def _flags(update: Update, rank: int) -> tuple[Flag, ...]:
    flags = tuple(flag for flag in update.flags if flag != Flag.DENSE)
    return flags if rank else (*flags, Flag.UNTRAINED)


def _scaled(update: Update, norm: float) -> float | None:
    if update.scale.value is None:
        return None
    scaled = abs(update.scale.value) * norm
    return scaled if np.isfinite(scaled) else None


def _rank(
    r: int, P: Any, own: Leading, norm: float | None, update: Update, flags: tuple[Flag, ...]
) -> RankAmplification:
    mine = frobenius(P[:r, :r])
    random, spread = chance.projection_mean_sd(
        r, own.norm, own.fourth_moment, update.d_out, update.d_in, leading=own.S
    )
    exists = own.norm > 0 and mine > 0
    return RankAmplification(
        r=r,
        proj_delta_W=mine,
        proj_W=frobenius(own.S[:r]),
        proj_W_error=own.error,
        proj_random=random,
        proj_random_sd=spread,
        amplification=norm / mine if exists and norm is not None else None,
        over_random=mine / random if random > 0 else None,
        flags=flags,
    )


def _concluded(found: Against[ModuleAmplification]) -> Amplification:
    """The result; an answer that does not exist is an error."""
    notes = found.notes()
    if not any(module.ranks for module in found.rows):
        damaged = found.damage.notes()
        raise InconclusiveError(
            f"No module has an amplification factor: {'; '.join(damaged)}"
            if damaged
            else f"Every delta_W is exactly zero (untrained), in {place(found.adapter.path)}; train it first"
        )
    return Amplification(found.base.path, found.adapter.path, found.rows, found.missing, notes)
