"""One module of several adapters merged: the factors that are written, and how near they are to what was wanted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.adapters.update import Factor, LowRankUpdate, Scale, known
from subspace.analysis.kept_energy import distance
from subspace.checkpoints.narrowing import narrow
from subspace.checkpoints.widening import widen
from subspace.flags import Flag
from subspace.geometry import factored, lapack
from subspace.geometry.frobenius import frobenius
from subspace.geometry.merger import Factors, Merged, Merger, Part, Settings, stacked
from subspace.results.merge import ModuleMerging

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MergedModule", "Norms", "merged_module"]

_FAR = 1e-4  # relative distance above which the squares of Gram matrices have digits to spare
_ROUNDING = 1e-12  # of a share that is computed in float64
# flags of an update that say where it lies in its layer, which the merged one keeps
_PLACED = (
    Flag.FUSED,
    Flag.INTERLEAVED,
    Flag.STACKED,
    Flag.EXPERT,
    Flag.GROUP_UNKNOWN,
    Flag.LAYER_REPLICATION,
)


class Norms(NamedTuple):
    """Norms of one module: of what was wanted, what is missing, the sum and what it is away, all terms, the result."""

    target: float
    missing: float
    whole: float
    away: float
    terms: float
    stored: float


@dataclass(frozen=True, eq=False)
class MergedModule:
    """What is written of a module, None where it is nothing, its row, and its norms for the total."""

    update: LowRankUpdate | None
    row: ModuleMerging
    norms: Norms


def merged_module(
    module: str,
    updates: Sequence[tuple[int, LowRankUpdate]],
    weights: Sequence[float],
    method: Merger,
    settings: Settings,
    dtype: str,
) -> MergedModule:
    """Merge the updates of one module.

    Parameters
    ----------
    updates : number of the adapter, and its update
    weights : of all adapters
    dtype : type of the stored factors

    Raises
    ------
    ValueRangeError : a number is not finite, or too large for its type
    """
    parts = [_part(n, update, weights[n]) for n, update in updates]
    merged = method.merged(parts, replace(settings, seed=_seed(settings.seed, module)))
    stored = _stored(merged.B, dtype), _stored(merged.A, dtype)
    norms = _norms(parts, merged, method.linear, stored)
    return MergedModule(
        update=_update(updates[0][1], stored, dtype) if merged.B.shape[1] else None,
        row=_row(module, parts, stored, norms, settings),
        norms=norms,
    )


def _part(n: int, update: LowRankUpdate, weight: float) -> Part:
    B, A = (np.asarray(M, dtype=np.float64) for M in (update.B, update.A))
    lapack.refuse(A, name="A")
    lapack.refuse(B, name="B")
    return Part(B, A, known(update.scale, update.module), weight, n)


def _seed(seed: int, module: str) -> int:
    """A seed for one module: the same whatever other modules there are."""
    return int.from_bytes(
        hashlib.sha256(f"{seed} {module}".encode("utf-8", "surrogatepass")).digest()[:8], "big"
    )


def _stored(M: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    return widen(narrow(M, dtype), dtype).astype(np.float64)


def _norms(parts: Sequence[Part], merged: Merged, linear: bool, stored: Factors) -> Norms:
    terms = frobenius([abs(each.weight * each.scale) * factored.norm(each.B, each.A) for each in parts])
    if not merged.B.shape[1]:
        return Norms(0.0, 0.0, 0.0, 0.0, terms, 0.0)
    whole = stacked(parts)
    size, missing = _missing(merged, stored)
    sum_size = size if linear else factored.norm(*whole)
    return Norms(
        target=size,
        missing=missing,
        whole=sum_size,
        away=missing if linear else _distance(whole, stored, sum_size),
        terms=terms,
        stored=_without_cancelling(*stored),
    )


def _missing(merged: Merged, stored: Factors) -> tuple[float, float]:
    """The norm of the target, and that of what the stored factors miss of it: what was cut off, and their rounding."""
    B, A = stored
    if not isinstance(merged.target, tuple):
        return frobenius(merged.target), distance(merged.target, B, A)
    size = factored.norm(*merged.target)
    lost = [] if merged.rest is None else [Part(*merged.rest)]
    rounded = [Part(merged.B - B, A), Part(merged.B, merged.A - A)]
    return size, _without_cancelling(*stacked([*lost, *rounded]))


def _distance(whole: Factors, stored: Factors, size: float) -> float:
    """``||D - B A||_F`` of two products: from Gram matrices unless the two are so near that these lose their digits."""
    both = stacked([Part(*whole), Part(*stored, scale=-1.0)])
    found = _without_cancelling(*both)
    return found if found > _FAR * size else factored.norm(*both)


def _without_cancelling(B: NDArray[np.float64], A: NDArray[np.float64]) -> float:
    """``||B @ A||_F`` by ``tr((B.T B) (A A.T))``, for products whose terms do not cancel."""
    sizes = np.sqrt(np.einsum("ij,ij->j", B, B)), np.sqrt(np.einsum("ij,ij->i", A, A))
    scale = [np.where(size > 0, size, 1.0) for size in sizes]
    weigh = scale[0] * scale[1]
    B, A = B / scale[0], A / scale[1][:, None]
    square = float(weigh @ ((B.T @ B) * (A @ A.T)) @ weigh)
    return math.sqrt(max(0.0, square))


def _row(
    module: str, parts: Sequence[Part], stored: Factors, norms: Norms, settings: Settings
) -> ModuleMerging:
    error = norms.missing / norms.target if norms.target else None
    energy = None if error is None else max(0.0, 1 - error**2)
    flags = []
    if not stored[1].shape[0]:
        flags.append(Flag.CANCELLED if norms.terms else Flag.UNTRAINED)
    if energy is not None and settings.energy is not None and energy < settings.energy * (1 - _ROUNDING):
        flags.append(Flag.ENERGY_BELOW_WANTED)
    return ModuleMerging(
        module=module,
        adapters=len(parts),
        rank=stored[1].shape[0],
        error=error,
        energy=energy,
        from_sum=norms.away / norms.whole if norms.whole else None,
        energy_ratio=(norms.whole / norms.terms) ** 2 if norms.terms else None,
        norm=norms.stored,
        weights=tuple(each.weight for each in parts),
        d_out=stored[0].shape[0],
        d_in=stored[1].shape[1],
        flags=tuple(flags),
    )


def _update(first: LowRankUpdate, stored: Factors, dtype: str) -> LowRankUpdate:
    B, A = stored
    kernel = first.A_factor.tensor_shape
    shape = (len(A), *kernel[1:]) if first.kind == "conv" and kernel is not None else None
    return replace(
        first,
        A_factor=_held(A, dtype, shape),
        B_factor=_held(B, dtype, None),
        scale=Scale(1.0, "merged"),
        flags=tuple(flag for flag in first.flags if flag in _PLACED),
    )


def _held(M: NDArray[Any], dtype: str, shape: tuple[int, ...] | None) -> Factor:
    return Factor((M.shape[0], M.shape[1]), dtype, lambda: M, tensor_shape=shape)
