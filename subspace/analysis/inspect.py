"""What is in an adapter: per module the shapes, rank, scale and its source, norms and spectrum sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter, load_adapter
from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.analysis.spectra import Spectrum, norm, spectra
from subspace.flags import Flag
from subspace.geometry import lapack
from subspace.geometry.spectrum import effective_rank, stable_rank
from subspace.results.inspection import Inspection, ModuleInspection
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters import BaseWeights

__all__ = ["inspect"]


def inspect(source: Any, *, progress: Callable[[int, int], None] | None = None, **options: Any) -> Inspection:
    """Describe an adapter; nothing is compared and no base is needed.

    Parameters
    ----------
    source, options : as `load_adapter` takes them
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
    adapter = load_adapter(source, **options)
    base = _opened_base(options.get("base"), adapter)
    rows = []
    for update, spectrum in spectra(adapter.values()):
        rows.append(_with_magnitudes(_module(update, spectrum), update, adapter, base))
        adapter.release()
        if progress is not None:
            progress(len(rows), len(adapter))
    return Inspection(
        path=adapter.path,
        format=adapter.format,
        container=adapter.container,
        sha256=adapter.sha256(),
        modules=tuple(rows),
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
    size = norm(lapack.as_float64(change())) if change is not None else None
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
    whole = abs(scale) * norm(S) if finite and scale is not None else None
    if whole is not None and not np.isfinite(whole):
        whole, flags = None, [*flags, Flag.OVERFLOW]
    # of one number every size is 1
    sizes = (1.0, 1.0) if len(S) == 1 else (stable_rank(S), effective_rank(S)) if trained else (None, None)
    return ModuleInspection(
        module=update.module,
        r=update.r,
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
    told = []
    for flag, what in (
        ("untrained", "delta_W is exactly zero: untrained"),
        (
            "needs_base",
            "delta_W is defined by the base weight: norm_A and norm_B are of the change of its columns and rows; "
            "give the base with --base",
        ),
        ("not_finite", "a factor holds values that are not finite (NaN or Inf)"),
        ("overflow", "the norm of delta_W is too large for float64"),
        (
            "dora",
            "DoRA: the numbers are of its direction part, scale * B @ A, not its magnitudes (norm_whole, with --base)",
        ),
        ("group_unknown", "fused groups whose place (q, k or v) the file does not say; see --enable-lora"),
    ):
        hit = [row.module for row in rows if flag in row.flags]
        if hit:
            listed = shown(", ".join(hit[:3])) + (", ..." if len(hit) > 3 else "")
            told.append(f"{what}, in {len(hit)} of {len(rows)} modules: {listed}")
    if adapter.unknown:
        listed = shown(", ".join(adapter.unknown[:3])) + (", ..." if len(adapter.unknown) > 3 else "")
        told.append(f"{len(adapter.unknown)} unknown tensors are ignored: {listed}")
    return tuple(told)
