"""An adapter whose merged weights have their top intruder scaled: W + delta_W + (lambda - 1) sigma u v^T.

lambda = 0 takes the intruder out, lambda = 1 changes nothing; the authors of the measure find that 0.7 to 0.9 costs
next to nothing of what was learned, and brings back part of what was forgotten.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter
from subspace.adapters.peft_start import start_that_changes_base
from subspace.adapters.place import place
from subspace.adapters.update import Factor, LowRankUpdate, known
from subspace.analysis.against_base import Scope, against_base
from subspace.analysis.intruded_module import asked_for, row_without_numbers, rows_of
from subspace.analysis.intruders import concluded
from subspace.analysis.resolve import Loading
from subspace.errors import FormatError, ValueRangeError
from subspace.flags import Flag
from subspace.geometry import factored
from subspace.geometry.frobenius import frobenius
from subspace.results.intrusion import Intruders, ModuleIntruders
from subspace.text import listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mitigation", "mitigate"]


@dataclass(frozen=True, eq=False)
class Mitigation:
    """An adapter with its top intruders scaled, in memory, and what was found.

    Attributes
    ----------
    intruders : of the adapter that was read; its rows say what rank each module has now and what that lost
    adapter : the new adapter, which `convert` takes
    """

    intruders: Intruders
    adapter: Adapter


def mitigate(
    base: Any,
    delta: Any,
    factor: float,
    *,
    rank: int | None = None,
    k: int = 10,
    epsilon: float = 0.5,
    side: str = "left",
    exact: bool | None = None,
    up_to: float = 0.0,
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
) -> Mitigation:
    """The adapter with the top intruder of each matrix multiplied by a factor; parameters as `intruders`, and:

    Parameters
    ----------
    factor : lambda, at least 0: 0 takes the intruder out, 1 changes nothing
    rank : largest rank of a module that is changed; by default one more than it had, which is exact

    Returns
    -------
    Mitigation
        Of each matrix with an intruder ``B' = [B, u]``, ``A' = [A; v^T]`` up to their scales, so that its merged weight
        is ``W + delta_W + (lambda - 1) sigma u v^T``; with `rank` the best approximation of that delta_W. Other
        modules, also those that were not measured, keep their factors.

    Raises
    ------
    FormatError : a module to be changed is dense or DoRA, or PEFT changes the base at its start
    ValueRangeError : a factor below 0 or a rank below 1

    References
    ----------
    Shuttleworth et al., arXiv 2410.21228, section 5: the top intruder of each weight matrix is scaled.

    Examples
    --------
    >>> W, b = np.diag([4.0, 3.0, 2.0, 1.0]), np.full((4, 1), 0.5)
    >>> found = mitigate(W, {"A": b.T, "B": 100 * b}, 0.0, k=1, epsilon=0.6, scale=1.0)
    >>> merged = W + next(iter(found.adapter.values())).delta_W()
    >>> bool(np.linalg.norm(merged, 2) < 5)
    True
    """
    if not 0 <= factor < math.inf:
        raise ValueRangeError(f"Invalid factor {factor}: give a number of at least 0, 1 to change nothing")
    if rank is not None and rank < 1:
        raise ValueRangeError(f"Rank {rank} is too small: a rank must be at least 1")
    asked = asked_for(k=k, epsilon=epsilon, side=side, exact=exact, up_to=up_to)._replace(keep_top=True)
    found = against_base(
        base,
        delta,
        partial(rows_of, asked=asked),
        without_numbers=partial(row_without_numbers, asked=asked, flag=Flag.NOT_FINITE),
        loading=Loading(None, scale, adapter_name, enable_lora, rename, layout),
        scope=Scope(modules, layers, jobs, device, resume),
        progress=progress,
    )
    result = concluded(found, asked)
    changed = _changed(found.adapter, result.modules, factor, rank)
    rows = tuple(_said(row, changed.get(row.module)) for row in result.modules)
    updates = {**found.adapter, **{module: each.update for module, each in changed.items()}}
    return Mitigation(replace(result, modules=rows), replace(found.adapter, updates=updates))


@dataclass(frozen=True)
class _Changed:
    """A new update, and the relative error of its delta_W where its rank was limited."""

    update: LowRankUpdate
    error: float


def _changed(
    adapter: Adapter, rows: Sequence[ModuleIntruders], factor: float, rank: int | None
) -> dict[str, _Changed]:
    tops = {row.module: row.top for row in reversed(rows) if row.top is not None}
    if factor == 1 or not tops:
        return {}
    _require_plain(adapter, tops)
    return {
        module: _scaled(adapter[module], top, factor, rank)  # type: ignore[arg-type]
        for module, top in tops.items()
    }


def _require_plain(adapter: Adapter, modules: Mapping[str, Any]) -> None:
    """Refuse updates to which a direction cannot be added."""
    where = f"in {place(adapter.path)}"
    dense = [module for module in modules if not isinstance(adapter[module], LowRankUpdate)]
    if dense:
        raise FormatError(
            f"A dense delta_W has no A and B to add a direction to: {listed(dense)}, {where}; truncate it first"
        )
    dora = [module for module in modules if Flag.DORA in adapter[module].flags]
    if dora:
        raise FormatError(
            f"DoRA's magnitudes would rescale what is added: {listed(dora)}, {where}; give an adapter without them"
        )
    init = start_that_changes_base(adapter.config)
    if "peft" in adapter.formats and init is not None:
        raise FormatError(
            f"Cannot change the rank of {place(adapter.path)}: by init_lora_weights {shown(repr(init))} PEFT changes "
            "the base weights in a way that depends on it; convert it to a plain LoRA first"
        )


def _scaled(
    update: LowRankUpdate,
    top: tuple[NDArray[np.float64], float, NDArray[np.float64]],
    factor: float,
    rank: int | None,
) -> _Changed:
    """``scale * B' A' = scale * B A + (factor - 1) sigma u v^T``, the size of what is added shared by both factors."""
    u, sigma, v = top
    added = (factor - 1) * sigma / known(update.scale, update.module)
    share = math.sqrt(abs(added))
    B = np.hstack([update.B.astype(np.float64), math.copysign(share, added) * u[:, None]])
    A = np.vstack([update.A.astype(np.float64), share * v[None]])
    if rank is None or rank >= len(A):
        return _Changed(_with_factors(update, B, A), 0.0)
    U, S, Vh = factored.svd(B, A)
    root = np.sqrt(S[:rank])
    error = frobenius(S[rank:]) / frobenius(S)
    return _Changed(_with_factors(update, U[:, :rank] * root, root[:, None] * Vh[:rank]), error)


def _with_factors(update: LowRankUpdate, B: NDArray[Any], A: NDArray[Any]) -> LowRankUpdate:
    """The update with other factors, to be stored in the types of its own."""
    kernel = update.A_factor.tensor_shape
    shape = None if kernel is None else (len(A), *kernel[1:])
    return replace(
        update,
        A_factor=replace(_held(A, update.A_factor.dtype), tensor_shape=shape),
        B_factor=_held(B, update.B_factor.dtype),
    )


def _held(M: NDArray[Any], dtype: str) -> Factor:
    return Factor((M.shape[0], M.shape[1]), dtype, lambda: M)


def _said(row: ModuleIntruders, changed: _Changed | None) -> ModuleIntruders:
    if changed is None:
        return row
    return replace(row, mitigated_r=changed.update.r, mitigated_error=changed.error)
