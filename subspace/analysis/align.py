"""Where does an update lie in the singular basis of the weight that it is added to?

With ``W = U diag(S) V^T`` the diagonal of ``U^T delta_W V`` rescales what W does, and the rest mixes W's directions.
Beside that: the shares of delta_W in W's leading directions, how far it turns them, and whether the entries that it
changes are those where W's leading part is large; each with what a random update of the same size gives. None of these
numbers says how an adapter was trained.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from subspace.adapters import dora
from subspace.adapters.place import place
from subspace.analysis.against_base import Against, Scope, Site, against_base
from subspace.analysis.module_alignment import change_of, measured
from subspace.analysis.resolve import Loading
from subspace.analysis.what_is_left import require_store, with_what_is_left
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.results.alignment import Alignment, ModuleAlignment

__all__ = ["align"]


def align(
    base: Any,
    delta: Any,
    *,
    k: int = 16,
    mask_share: float = 0.1,
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
) -> Alignment:
    """Shares of an update in its base weight's own singular directions, and how far it turns and rescales them.

    Parameters
    ----------
    base : base weights, as `load_base` takes them
    delta : the adapter, as `load_adapter` takes it
    k : how many of W's leading directions are taken
    mask_share : share of all entries of W that are in its principal mask, in (0, 1)
    store : also how much of delta_W is left when it is merged and stored in this type, as `visibility` takes it
    scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    modules, layers, jobs, device, resume : which modules are measured and how, as `Scope` takes them
    progress : called with (modules done, modules in all)

    Raises
    ------
    InconclusiveError : the base has no module of the adapter, or none has numbers: all are untrained or not finite
    ShapeError : a base weight does not have the shape of its update
    SubspaceError : a file cannot be read

    Notes
    -----
    A weight whose smaller side is at most 1024, and which has at most 8.4 million entries, is factored in full. Of a
    larger one only the k leading directions are found, by Krylov iteration: its re-weighting is that of those
    directions, and its spectral shift lies between two bounds. Without a scale there are shares only.

    References
    ----------
    Zhu et al., arXiv 2511.08567: spectral shift, rotation, principal mask. github.com/elias-gaeros/resize_lora,
    docs/refs/diffw_metrics.md: structural alignment.

    Examples
    --------
    Half of the leading part of W, as an update, only re-weights it.

    >>> import numpy as np
    >>> W = np.diag([4.0, 2.0, 1.0])
    >>> (row,) = align(W, {"A": np.eye(1, 3), "B": 2 * np.eye(3, 1)}, scale=1.0, k=1)
    >>> float(row.reweighting), float(row.input_share), row.input_rotation
    (1.0, 1.0, 0.0)
    """
    if k < 1:
        raise ValueRangeError(f"k = {k} is too small: give `k` a whole number of at least 1")
    if not 0 < mask_share < 1:
        raise ValueRangeError(f"`mask_share` is {mask_share}: give a number between 0 and 1, such as 0.1")
    if store is not None:
        require_store(store)
    found = against_base(
        base,
        delta,
        partial(_rows, k=k, mask_share=mask_share, store=store),
        without_numbers=_without_numbers,
        loading=Loading(None, scale, adapter_name, enable_lora, rename, layout),
        scope=Scope(modules, layers, jobs, device, resume),
        progress=progress,
    )
    return _concluded(found)


def _rows(site: Site, *, k: int, mask_share: float, store: str | None) -> tuple[ModuleAlignment]:
    change = change_of(site.update)
    flags = tuple(flag for flag in site.update.flags if flag != Flag.DENSE)
    if change.norm == 0:
        return (_row(site, flags=(*flags, Flag.UNTRAINED)),)
    numbers, odd = measured(site, change, k=k, mask_share=mask_share)
    row = _row(site, flags=(*flags, *odd), **numbers)
    row = replace(row, norm_whole=dora.norm_whole(site.update, site.adapter, site.weight))
    return (with_what_is_left(row, site, store),)


def _without_numbers(site: Site) -> tuple[ModuleAlignment]:
    return (_row(site, flags=(*site.update.flags, Flag.NOT_FINITE)),)


def _row(site: Site, *, flags: tuple[Flag, ...], **numbers: Any) -> ModuleAlignment:
    return ModuleAlignment(
        module=site.update.module,
        d_out=site.update.d_out,
        d_in=site.update.d_in,
        scale=site.update.scale.value,
        scale_source=site.update.scale.source,
        base_key=site.weight.key,
        orientation=site.weight.orientation,
        flags=flags,
        **numbers,
    )


def _concluded(found: Against[ModuleAlignment]) -> Alignment:
    """The result; an answer that does not exist is an error."""
    if not any(row.input_share is not None for row in found.rows):
        damaged = found.damage.notes()
        zero = any(Flag.BASE_ZERO in row.flags for row in found.rows)
        why = "; ".join(damaged) or ("every base weight is zero" if zero else "")
        raise InconclusiveError(
            f"No module can be aligned: {why}"
            if why
            else f"Every delta_W is exactly zero (untrained), in {place(found.adapter.path)}; train it first"
        )
    return Alignment(found.base.path, found.adapter.path, found.rows, found.missing, found.notes())
