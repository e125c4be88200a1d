"""Did my merge do anything? How much of delta_W is left when W + delta_W is rounded to the type that W is stored in."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from subspace.adapters import dora
from subspace.adapters.adapter import Adapter
from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.place import place
from subspace.adapters.update import LowRankUpdate, Update
from subspace.analysis.against_base import Against, Scope, Site, against_base
from subspace.analysis.frames import dense_noise
from subspace.analysis.resolve import Loading
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.geometry import factored
from subspace.geometry.rounding import float64_noise
from subspace.geometry.stored_types import STORED
from subspace.geometry.topk import leading
from subspace.geometry.visibility import Merge, Product, left_of
from subspace.geometry.visibility import visibility as left_in
from subspace.results.visibility import ModuleVisibility, Visibility, in_total
from subspace.text import listed, shown

__all__ = ["STORES", "require_store", "stored_as", "visibility", "visible"]

STORES = ("auto", *STORED)
_NUMBERS = ("norm_delta_W", "changed", "changed_random", "norm_left", "cosine")
_OF_DENSE = 4  # directions of a dense delta_W
_SETTLED = 1e-3  # estimated error of the leading part of D above which its directions are called estimates


def visibility(
    base: Any,
    delta: Any,
    *,
    store: str = "auto",
    r: int | None = None,
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
) -> Visibility:
    """How much of an update is left when it is added to its base and the sum is stored, per module and in total.

    Parameters
    ----------
    base : base weights, as `load_base` takes them
    delta : the adapter, as `load_adapter` takes it
    store : type of the stored sum: "bfloat16", "float16", "float32", "int8", or "auto", the base's own type where that
        is bfloat16 or float16, else bfloat16; a base of another type is rounded to it first
    r : how many leading directions are compared; by default the rank of delta_W (4 of a dense one); 0 for none, which
        is several times quicker
    scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    modules, layers, jobs, device, resume : which modules are measured and how, as `Scope` takes them
    progress : called with (modules done, modules in all)

    Raises
    ------
    InconclusiveError : the base has no module of the adapter; no module has numbers: the scale is unknown, or all are
        untrained or not finite
    ShapeError : a base weight does not have the shape of its update
    SubspaceError : a file cannot be read

    Notes
    -----
    The sum is computed in float32 and rounded once; W is read a chunk of rows at a time. int8 is LLM.int8's scheme, one
    scale per row. DoRA counts with its magnitudes where they are known. Directions take a few more passes over W.

    Examples
    --------
    1/512 is below half the distance of bfloat16's neighbours of 1, and half of that of 1/8.

    >>> W = np.diag([1.0, 0.125])
    >>> row = visibility(W, np.diag([1.0, 1.0]) / 512, store="bfloat16").modules[0]
    >>> row.changed, round(row.norm_left, 3), round(row.cosine, 3)
    (0.25, 0.707, 0.707)
    """
    require_store(store)
    if r is not None and r < 0:
        raise ValueRangeError(f"Invalid number of directions {r}: give `r` as 0 or more")
    found = against_base(
        base,
        delta,
        partial(_rows, store=store, r=r),
        without_numbers=partial(_without_numbers, store=store),
        loading=Loading(None, scale, adapter_name, enable_lora, rename, layout),
        scope=Scope(modules, layers, jobs, device, resume),
        progress=progress,
    )
    return _concluded(found)


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
    weight, update, adapter, *_ = site
    stored = stored_as(weight, store)
    row = partial(_row, weight, update, store=stored)
    if update.scale.value is None:
        return row(flags=(*_flags(update), Flag.SCALE_UNKNOWN))
    whole = _dora_change(update, adapter, weight)
    delta = _delta(update) if whole is None else whole
    merge = Merge(
        weight.streamed(),
        delta.T if weight.transposed else delta,
        stored,
        outputs_are_columns=weight.transposed,
    )
    found = left_in(merge)
    flags = tuple(flag for flag in _flags(update) if whole is None or flag is not Flag.DORA)
    if not found.delta_squares:
        return row(flags=(*flags, Flag.UNTRAINED))
    if not _is_kept(weight.stored.dtype, stored):
        flags += (Flag.ROUNDED_FIRST,)
    numbers: dict[str, Any] = {
        "norm_delta_W": math.sqrt(found.delta_squares),
        "changed": found.changed / found.entries,
        "changed_random": found.changed_isotropic / found.entries,
        "norm_left": _known(found.norm_left),
        "cosine": _known(found.cosine),
        "infinite": found.infinite,
    }
    if found.infinite:
        return row(**numbers, flags=(*flags, Flag.TOO_LARGE_TO_STORE))
    if not found.left_squares:
        return row(**numbers, flags=(*flags, Flag.NOTHING_LEFT))
    if r == 0:
        return row(**numbers, flags=flags)
    compared, more = _directions(merge, update, whole, weight, r)
    return row(**numbers, **compared, flags=(*flags, *more))


def _is_kept(dtype: str, stored: str) -> bool:
    """Whether numbers of one type are numbers of another too, so that rounding them to it changes none."""
    return dtype == stored or (stored == "float32" and dtype not in ("float64", "int8"))


def _rows(site: Site, *, store: str, r: int | None) -> tuple[ModuleVisibility]:
    return (visible(site, store=store, r=r),)


def _without_numbers(site: Site, *, store: str) -> tuple[ModuleVisibility]:
    flags = (*_flags(site.update), Flag.NOT_FINITE)
    return (_row(site.weight, site.update, store=stored_as(site.weight, store), flags=flags),)


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


def _dora_change(update: Update, adapter: Adapter, weight: BaseWeight) -> Any:
    """DoRA's whole change of W (d_out, d_in) in float32; None of other adapters, and where magnitudes are unknown."""
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


def _concluded(found: Against[ModuleVisibility]) -> Visibility:
    """The result; an answer that does not exist is an error."""
    if not any(row.changed is not None for row in found.rows):
        raise _without_an_answer(found)
    total = in_total(found.rows)
    return Visibility(
        found.base.path,
        found.adapter.path,
        modules=found.rows,
        missing=found.missing,
        notes=found.notes(),
        **total,
    )


def _without_an_answer(found: Against[ModuleVisibility]) -> InconclusiveError:
    unknown = next((row.module for row in found.rows if Flag.SCALE_UNKNOWN in row.flags), None)
    where, nothing = place(found.adapter.path), "Cannot tell how much of the update is left"
    if unknown is not None:
        return InconclusiveError(
            f"{nothing}: the scale of delta_W is unknown, in module {shown(unknown)} of {where}; "
            f"{Flag.SCALE_UNKNOWN.cure}"
        )
    if damaged := found.damage.notes():
        return InconclusiveError(f"{nothing}: {'; '.join(damaged)}")
    return InconclusiveError(f"Every delta_W is exactly zero (untrained), in {where}; train it first")
