"""Did my merge do anything? How much of delta_W is left when W + delta_W is rounded to the type that W is stored in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from subspace.adapters.place import place
from subspace.analysis.against_base import Against, Scope, Site, against_base
from subspace.analysis.resolve import Loading
from subspace.analysis.what_is_left import STORES, require_store, visible, without_numbers
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.results.visibility import ModuleVisibility, Visibility, in_total
from subspace.text import shown

__all__ = ["STORES", "visibility"]


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

    >>> import numpy as np
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


def _rows(site: Site, *, store: str, r: int | None) -> tuple[ModuleVisibility]:
    return (visible(site, store=store, r=r),)


def _without_numbers(site: Site, *, store: str) -> tuple[ModuleVisibility]:
    return (without_numbers(site, store=store),)


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
