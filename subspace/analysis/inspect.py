"""What is in an adapter: per module the shapes, rank, scale and its source, norms and spectrum sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter
from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.analysis.resolve import Loading
from subspace.analysis.update_spectra import Spectrum, spectra
from subspace.flags import Flag, flag_notes
from subspace.geometry import lapack
from subspace.geometry.frobenius import frobenius
from subspace.geometry.spectrum import effective_rank, stable_rank
from subspace.results.inspection import Inspection, ModuleInspection
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.adapters import BaseWeights

__all__ = ["inspect"]


def inspect(
    source: Any,
    *,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Describe an adapter; nothing is compared and no base is needed.

    Parameters
    ----------
    source : the adapter, as `load_adapter` takes it
    base, scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    progress : called with (modules done, modules in all)

    Raises
    ------
    SubspaceError : the adapter cannot be read

    Examples
    --------
    >>> import numpy as np
    >>> found = inspect({"q.lora_A": np.eye(2, 4), "q.lora_B": np.eye(3, 2)}, scale=2.0)
    >>> found.modules[0].rank, round(found.modules[0].norm_delta_W, 4)
    (2, 2.8284)
    """
    adapter = Loading(base, scale, adapter_name, enable_lora, rename, layout).adapter(source)
    weights = _opened_base(base, adapter)
    rows = []
    for update, spectrum in spectra(adapter.values()):
        rows.append(_with_magnitudes(_module(update, spectrum), update, adapter, weights))
        adapter.release()
        if progress is not None:
            progress(len(rows), len(adapter))
    return Inspection(
        path=adapter.path,
        format=adapter.format,
        container=adapter.container,
        sha256=adapter.sha256(),
        modules=tuple(replace(row, path=adapter.path) for row in rows),
        ignored=adapter.ignored,
        unknown=adapter.unknown,
        notes=adapter.notes + _notes(rows, adapter),
        parameters=_stored(adapter),
    )


def _stored(adapter: Adapter) -> int:
    """How many numbers the file holds for its updates; a scalar such as alpha is a setting, not a parameter."""
    if adapter.tensors is None:
        return 0
    others = {item.key for item in adapter.ignored} | set(adapter.unknown)
    layout = adapter.tensors.layout
    return sum(math.prod(info.shape) for key, info in layout.items() if info.shape and key not in others)


def _module(update: Update, spectrum: Spectrum | None) -> ModuleInspection:
    flags = list(update.flags)
    if isinstance(update, DenseUpdate) and Flag.NEEDS_BASE in flags:
        return _unbound(update, flags)
    if spectrum is None:
        return _described(update, [*flags, Flag.NOT_FINITE], np.zeros(0), None, None)
    S, norm_A, norm_B = spectrum
    if update.scale.value is None:
        flags.append(Flag.SCALE_UNKNOWN)
    if not S.size:
        flags.append(Flag.UNTRAINED)
    elif isinstance(update, LowRankUpdate) and len(S) < update.r:
        flags.append(Flag.RANK_BELOW_R)
    return _described(update, flags, S, norm_A, norm_B)


def _opened_base(base: Any, adapter: Adapter) -> BaseWeights | None:
    """The base weights, where they were given and a number of the adapter needs them."""
    if base is None or not any(Flag.DORA in update.flags for update in adapter.values()):
        return None
    from subspace.adapters import load_base

    return load_base(base)


def _with_magnitudes(
    row: ModuleInspection, update: Update, adapter: Adapter, base: BaseWeights | None
) -> ModuleInspection:
    """The row with the norm of DoRA's whole change, where the base has the module."""
    weight = base.weight(update) if base is not None and Flag.DORA in update.flags else None
    if base is None or weight is None or Flag.NOT_FINITE in row.flags:
        return row
    from subspace.adapters.dora import norm_whole

    whole = norm_whole(update, adapter, weight)
    base.tensors.release()
    return replace(row, norm_whole=whole)


def _unbound(update: DenseUpdate, flags: list[Flag]) -> ModuleInspection:
    """What a file holds of an update that only the base defines: the norm of its change, on the side it acts on."""
    change = update.matrix.stored
    size = frobenius(lapack.as_float64(change())) if change is not None else None
    if size is not None and not np.isfinite(size):
        size, flags = None, [*flags, Flag.NOT_FINITE]
    norms = (size, None) if update.d_in else (None, size)
    row = _described(update, [*flags, Flag.UNTRAINED] if size == 0 else flags, np.zeros(0), *norms)
    return replace(row, rank=None)


def _described(
    update: Update, flags: list[Flag], S: np.ndarray, norm_A: float | None, norm_B: float | None
) -> ModuleInspection:
    finite, trained = Flag.NOT_FINITE not in flags, S.size > 0
    scale = update.scale.value
    whole = abs(scale) * frobenius(S) if finite and scale is not None else None
    if whole is not None and not np.isfinite(whole):
        whole, flags = None, [*flags, Flag.OVERFLOW]
    # of one number every size is 1
    sizes = (1.0, 1.0) if len(S) == 1 else (stable_rank(S), effective_rank(S)) if trained else (None, None)
    return ModuleInspection(
        module=update.module,
        r=update.r,
        r_factors=update.scale.r,
        d_in=update.d_in,
        d_out=update.d_out,
        alpha=update.scale.alpha,
        scale=scale,
        scale_source=update.scale.source,
        norm_A=norm_A,
        norm_B=norm_B,
        norm_delta_W=whole,
        S=S,
        rank=len(S) if finite else None,
        stable_rank=sizes[0],
        effective_rank=sizes[1],
        kind=update.kind,
        flags=tuple(flags),
    )


def _notes(rows: list[ModuleInspection], adapter: Adapter) -> tuple[str, ...]:
    spoken = {note.flag for note in adapter.notes if note.flag is not None}
    notes = flag_notes({row.module: row.flags for row in rows}, without=spoken)
    notes += _factored(rows)
    if adapter.unknown:
        notes += (f"{counted(len(adapter.unknown), 'unknown tensor')} ignored: {listed(adapter.unknown)}",)
    return notes


def _factored(rows: list[ModuleInspection]) -> tuple[str, ...]:
    """The note that r is not the rank that alpha is divided by."""
    others = [row for row in rows if row.r_factors not in {None, row.r}]
    if not others:
        return ()
    first = others[0]
    return (
        f"In {counted(len(others), 'module')} ({listed(row.module for row in others)}) the trained factors have "
        f"another rank than the A and B that they make, as in {shown(first.module)}: {first.r_factors}, "
        f"and r = {first.r}; alpha is divided by the rank of the factors",
    )
