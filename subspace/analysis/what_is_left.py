"""How much of the update of one module is left when it is merged into its weight and the sum is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from subspace.adapters import dora
from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.analysis.against_base import Site
from subspace.analysis.damage import damaged
from subspace.analysis.frames import dense_noise
from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.geometry import factored
from subspace.geometry.rounding import float64_noise
from subspace.geometry.stored_types import STORED
from subspace.geometry.topk import leading
from subspace.geometry.visibility import Merge, Product, Visibility, left_of, visibility
from subspace.results.stored_columns import StoredColumns
from subspace.results.visibility import ModuleVisibility
from subspace.text import listed, shown

__all__ = ["STORES", "require_store", "stored_as", "visible", "with_what_is_left", "without_numbers"]

_R = TypeVar("_R", bound=StoredColumns)

STORES = ("auto", *STORED)
_NUMBERS = ("norm_delta_W", "changed", "changed_random", "norm_left", "cosine")
_OF_DENSE = 4  # directions of a dense delta_W
_SETTLED = 1e-3  # estimated error of the leading part of D above which its directions are called estimates


def require_store(store: str) -> None:
    """Check the name of a stored type.

    Raises
    ------
    ValueRangeError : it is unknown
    """
    if store not in STORES:
        raise ValueRangeError(
            f"Unknown type to store '{shown(store)}'; give `store` as {listed(STORES, most=9)}"
        )


def stored_as(weight: BaseWeight, store: str) -> str:
    """The type that a merged weight is stored in.

    Parameters
    ----------
    weight : of the base
    store : one of `STORES`; "auto" is the base's own type where that has 16 bits, else bfloat16
    """
    if store != "auto":
        return store
    return weight.stored.dtype if weight.stored.dtype in ("bfloat16", "float16") else "bfloat16"


def visible(site: Site, *, store: str = "auto", r: int | None = None) -> ModuleVisibility:
    """How much of the update of one module is left when it is merged and stored.

    Parameters
    ----------
    site : the module and its weight in the base
    store, r : as `visibility` takes them

    Raises
    ------
    ValueRangeError : a number of W or of delta_W is not finite
    """
    weight, update, *_ = site
    row = partial(_row, weight, update, store=stored_as(weight, store))
    if update.scale.value is None:
        return row(flags=(*_flags(update), Flag.SCALE_UNKNOWN))
    whole = _dora_change(site)
    merge = _merge(weight, _delta(update) if whole is None else whole, store)
    found = _left(merge, site)
    flags = tuple(flag for flag in _flags(update) if whole is None or flag is not Flag.DORA)
    if found is None:
        return row(flags=(*flags, Flag.TOO_LARGE_TO_STORE))
    if not found.delta_squares:
        return row(flags=(*flags, Flag.UNTRAINED))
    compared: dict[str, Any] = {}
    flags += tuple(_found_flags(found, weight, merge.stored))
    if r != 0 and not found.infinite and found.left_squares:
        compared, more = _directions(merge, update, whole, weight, r)
        flags += more
    return row(**_numbers(found), **compared, flags=flags)


def with_what_is_left(row: _R, site: Site, store: str | None) -> _R:
    """The row of a module with how much of its update is left in a stored type; as it was where `store` is None."""
    if store is None:
        return row
    left = visible(site, store=store, r=0)
    own = {
        name: getattr(left, name) for name in ("store", "changed", "changed_random", "norm_left", "cosine")
    }
    before: Any = row
    return replace(before, **own, flags=tuple(dict.fromkeys((*before.flags, *left.flags))))  # type: ignore[no-any-return]


def without_numbers(site: Site, *, store: str) -> ModuleVisibility:
    """The row of a module of which a number is not finite."""
    flags = (*_flags(site.update), Flag.NOT_FINITE)
    return _row(site.weight, site.update, store=stored_as(site.weight, store), flags=flags)


def _merge(weight: BaseWeight, delta: Any, store: str) -> Merge:
    return Merge(
        weight.streamed(),
        delta.T if weight.transposed else delta,
        stored_as(weight, store),
        outputs_are_columns=weight.transposed,
    )


def _left(merge: Merge, site: Site) -> Visibility | None:
    """What is left; None where finite factors have a product beyond float32, and so beyond every stored type."""
    try:
        return visibility(merge)
    except ValueRangeError:
        weight, update, *_ = site
        if damaged([("", update), ("", DenseUpdate(update.module, weight.factor()))]):
            raise
        return None


def _numbers(found: Visibility) -> dict[str, Any]:
    return {
        "norm_delta_W": math.sqrt(found.delta_squares),
        "changed": found.changed / found.entries,
        "changed_random": found.changed_isotropic / found.entries,
        "norm_left": _known(found.norm_left),
        "cosine": _known(found.cosine),
        "infinite": found.infinite,
    }


def _found_flags(found: Visibility, weight: BaseWeight, stored: str) -> Iterator[Flag]:
    """What to know before reading the numbers."""
    if not _is_kept(weight.stored.dtype, stored):
        yield Flag.ROUNDED_FIRST
    if found.infinite:
        yield Flag.TOO_LARGE_TO_STORE
    elif not found.left_squares:
        yield Flag.NOTHING_LEFT


def _is_kept(dtype: str, stored: str) -> bool:
    """Whether numbers of one type are numbers of another too, so that rounding them to it changes none."""
    return dtype == stored or (stored == "float32" and dtype not in ("float64", "int8"))


def _row(weight: BaseWeight, update: Update, *, store: str, **numbers: Any) -> ModuleVisibility:
    missing = dict.fromkeys(_NUMBERS)
    return ModuleVisibility(
        module=update.module,
        d_out=update.d_out,
        d_in=update.d_in,
        scale=update.scale.value,
        scale_source=update.scale.source,
        base_key=weight.key,
        base_dtype=weight.stored.dtype,
        store=store,
        **{**missing, **numbers},
    )


def _flags(update: Update) -> tuple[Flag, ...]:
    return tuple(flag for flag in update.flags if flag is not Flag.DENSE)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _delta(update: Update) -> Any:
    """delta_W (d_out, d_in) as rows, of a product never formed as a whole."""
    scale = update.scale.value or 0.0
    if isinstance(update, LowRankUpdate):
        return Product(update.B, update.A, scale)
    M = update.matrix.load()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # refused where it is read
        return M if scale == 1 else M * M.dtype.type(scale)


def _dora_change(site: Site) -> Any:
    """DoRA's whole change of W (d_out, d_in) in float32; None of other adapters, and where magnitudes are unknown."""
    weight, update, adapter, *_ = site
    pieces = dora.changes(update, adapter, weight)
    if pieces is None:
        return None
    whole = np.empty((update.d_out, update.d_in), dtype=np.float32)
    for start, stop, change in pieces:
        whole[start:stop] = change
    return whole


def _directions(
    merge: Merge, update: Update, whole: Any, weight: BaseWeight, r: int | None
) -> tuple[dict[str, Any], tuple[Flag, ...]]:
    """Similarity of the leading directions of D and of delta_W, with that of isotropic ones, and flags."""
    U, V = _of_delta(update, whole, r)
    if not U.shape[1]:
        return {}, ()
    left = left_of(merge, U.shape[1])
    mine, others = (left.V, left.U) if weight.transposed else (left.U, left.V)
    least, most = sorted((U.shape[1], mine.shape[1]))
    numbers = {
        "r": U.shape[1],
        "phi_left": _phi(mine, U, least),
        "phi_right": _phi(others, V, least),
        "chance_left": most / len(U),
        "chance_right": most / len(V),
    }
    return numbers, (Flag.LEFT_ESTIMATED,) if left.error > _SETTLED else ()


def _phi(frame: Any, other: Any, least: int) -> float:
    return min(1.0, float(np.sum((frame.T @ other) ** 2)) / least)


def _of_delta(update: Update, whole: Any, r: int | None) -> tuple[Any, Any]:
    """Leading left and right directions of delta_W, (d_out, k) and (d_in, k)."""
    if whole is None and isinstance(update, LowRankUpdate):
        U, _, Vh = factored.svd(update.B, update.A)
        return U[:, :r], Vh.T[:, :r]
    wanted = r or (update.r if isinstance(update, LowRankUpdate) else min(_OF_DENSE, update.r))
    M = update.matrix.load() if whole is None else whole  # type: ignore[union-attr]
    found = leading(M, wanted)
    noise = 0.0 if isinstance(update, LowRankUpdate) else dense_noise(update, M)
    rank = int(np.count_nonzero(max(noise, float64_noise(M.shape, found.S.max(initial=0.0))) < found.S))
    return found.U[:, :rank], found.V[:, :rank]
