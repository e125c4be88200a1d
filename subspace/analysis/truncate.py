"""An adapter cut to lower ranks, each module's delta_W to its best approximation: what is left, and what was lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter
from subspace.adapters.naming.peft_patterns import Patterns
from subspace.adapters.peft_start import start_that_changes_base
from subspace.adapters.place import place
from subspace.adapters.update import DenseUpdate, Factor, LowRankUpdate, Update
from subspace.analysis.frames import dense_noise
from subspace.analysis.resolve import Loading
from subspace.errors import FormatError, ValueRangeError, located
from subspace.flags import Flag, flag_notes
from subspace.geometry import factored, lapack
from subspace.geometry.rounding import float64_noise
from subspace.geometry.spectrum import energy_rank
from subspace.geometry.topk import leading
from subspace.results.truncation import ModuleTruncation, Truncation
from subspace.text import listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["truncate"]

_CHUNK = 256  # rows of a dense delta_W that are compared at once
_TOL = 1e-6  # of the leading triplets, which are found in float32


def truncate(
    source: Any,
    *,
    rank: int | None = None,
    energy: float | None = None,
    ranks: Mapping[str, int] | None = None,
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Truncation:
    """An adapter of lower rank, each ``delta_W`` replaced by its best approximation of that rank.

    Parameters
    ----------
    source : the adapter, as `load_adapter` takes it
    rank : the largest rank of any module that `ranks` does not name
    energy : keep at least this share of every module's ``||delta_W||_F^2``, in (0, 1]; alone
    ranks : module pattern -> largest rank, matched as PEFT matches its ``rank_pattern``: first match, as a regular
        expression at the end of the name; other modules stay whole where no `rank` is given
    base, scale, adapter_name, enable_lora, rename : how the adapter is read, as `load_adapter` takes them
    progress : called with (modules done, modules in all)

    Returns
    -------
    Truncation
        ``B' = U_k sqrt(S_k)`` and ``A' = sqrt(S_k) V_k^T`` under the same scale, to be stored in the same type. A
        module that is not cut keeps its own factors; an untrained one gets rank 1.

    Raises
    ------
    FormatError : a dense module without a rank, or a start that another rank would change
    ValueRangeError : a rank below 1, a share outside (0, 1], a number that is not finite

    Notes
    -----
    From the SVD of the factors: no delta_W is formed. A dense delta_W takes its leading triplets. By Eckart and Young
    no matrix of rank k is nearer in any unitarily invariant norm; the error is the norm of what is cut off.

    References
    ----------
    Eckart & Young 1936, Psychometrika 1:211. Mirsky 1960, Q. J. Math. 11:50.

    Examples
    --------
    >>> B, A = np.diag([3.0, 4.0]), np.eye(2)
    >>> cut = truncate({"q.lora_A": A, "q.lora_B": B}, rank=1)
    >>> cut.modules[0].r_after, cut.modules[0].S, cut.modules[0].error
    (1, array([4.]), 0.6)
    """
    _require_limits(rank, energy, ranks)
    adapter = Loading(base, scale, adapter_name, enable_lora, rename).adapter(source)
    _require_free_start(adapter)
    patterns = Patterns(ranks or {}, where="`ranks`")
    updates: dict[str, Update] = {}
    rows = []
    for module, update in adapter.items():
        limit = patterns.match(module) or rank
        with located(f"{place(adapter.path, module)}"):
            updates[module], row = _cut(update, limit, energy)
        rows.append(row)
        adapter.release()
        if progress is not None:
            progress(len(rows), len(adapter))
    return Truncation(
        path=adapter.path,
        adapter=replace(adapter, updates=updates),
        modules=tuple(rows),
        notes=_notes(patterns, rows, adapter),
    )


def _require_limits(rank: int | None, energy: float | None, ranks: Mapping[str, int] | None) -> None:
    if (energy is None) == (rank is None and ranks is None):
        raise ValueRangeError("Cannot tell how far to cut: give `rank`, `ranks` or both, or `energy` alone")
    given = [] if rank is None else [("as `rank`", rank)]
    given += [(f"for {shown(repr(pattern))} in `ranks`", value) for pattern, value in (ranks or {}).items()]
    for where, value in given:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueRangeError(
                f"Invalid rank {shown(repr(value))} {where}; a rank is a whole number of at least 1"
            )
    if energy is not None and not 0 < energy <= 1:
        raise ValueRangeError(
            f"Invalid share of energy {energy}: give `energy` a number in (0, 1], such as 0.9 for 90 %"
        )


def _require_free_start(adapter: Adapter) -> None:
    init = start_that_changes_base(adapter.config)
    if adapter.format == "peft" and init is not None:
        raise FormatError(
            f"Cannot cut {place(adapter.path)}, whose start depends on its rank: by init_lora_weights "
            f"{shown(repr(init))} PEFT changes the base weights; convert it to a plain LoRA first"
        )


def _cut(update: Update, limit: int | None, energy: float | None) -> tuple[Update, ModuleTruncation]:
    if isinstance(update, DenseUpdate):
        return _cut_dense(update, limit, energy)
    lapack.refuse(update.A, name="A")
    lapack.refuse(update.B, name="B")
    if limit is not None and limit >= update.r:
        return update, _unchanged(update)
    if limit is None and energy is None:
        return update, _unchanged(update)
    U, S, Vh = factored.svd(update.B, update.A)
    k = min(limit, len(S)) if limit is not None else _enough(S, energy)
    row = _row(update, max(k, 1), S[:k], tail=_norm(S[k:]))
    if k == 0:
        return _untrained(update), row
    root = np.sqrt(S[:k])
    return _with_factors(update, U[:, :k] * root, root[:, None] * Vh[:k]), row


def _enough(S: NDArray[np.float64], energy: float | None) -> int:
    """Least rank that keeps a share of the energy; 0 of a zero matrix."""
    return int(energy_rank(S, energy or 1.0)) if S.size else 0


def _row(
    update: Update, r: int, S: NDArray[np.float64], *, tail: float, flags: tuple[Flag, ...] = ()
) -> ModuleTruncation:
    """Numbers of one module from the singular values that are kept and the norm of those that are not."""
    kept = _norm(S)
    whole = float(np.hypot(kept, tail))
    relative = tail / whole if whole > 0 else None
    scale = update.scale.value
    return ModuleTruncation(
        module=update.module,
        r_before=update.r,
        r_after=r,
        energy=None if whole == 0 else (kept / whole) ** 2,
        error=relative,
        error_absolute=None if scale is None else abs(scale) * tail,
        S=S,
        flags=flags if whole > 0 else (*flags, Flag.UNTRAINED),
    )


def _norm(S: NDArray[np.float64]) -> float:
    """Euclidean norm, safe from overflow of the squares."""
    largest = float(S.max(initial=0.0))
    return largest * float(np.linalg.norm(S / largest)) if largest > 0 else 0.0


def _unchanged(update: LowRankUpdate) -> ModuleTruncation:
    """A module whose factors stay, and their singular values."""
    S = factored.singular_values(update.B, update.A)
    return _row(update, update.r, S, tail=0.0, flags=(Flag.UNCHANGED,))


def _untrained(update: LowRankUpdate) -> LowRankUpdate:
    """Rank 1 of a zero update: the first row of A, so that training can go on, and a zero B."""
    return _with_factors(update, np.zeros((update.d_out, 1)), update.A[:1].astype(np.float64))


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


def _cut_dense(
    update: DenseUpdate, limit: int | None, energy: float | None
) -> tuple[LowRankUpdate, ModuleTruncation]:
    """Factors of a dense delta_W; the error is measured on it, since its leading triplets may be estimates."""
    M = update.matrix.load()
    lapack.refuse(M, name="delta_W")
    noise = dense_noise(update, M)
    U, S, V = _leading(M, limit) if energy is None else _by_energy(M, energy, noise)
    noise = max(noise, float64_noise(M.shape, S.max(initial=0.0)))
    keep = max(int(np.count_nonzero(S > noise)), 1)
    U, S, V = U[:, :keep], S[:keep], V[:, :keep]
    root = np.sqrt(S)
    cut = _as_factors(update, U * root, root[:, None] * V.T)
    tail = _distance(M, U * S, V.T)
    return cut, _row(update, keep, S[S > noise], tail=tail, flags=(Flag.DENSE,))


def _leading(M: NDArray[Any], limit: int | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Leading triplets U, S, V: the span of V as float32 passes over M find it, what M does to it in float64."""
    if limit is None:
        raise FormatError("No rank for a dense delta_W; give `rank`")
    found = leading(M, limit, tol=_TOL)
    if found.exact:
        return found.U, found.S, found.V
    Q, _ = lapack.qr(found.V)
    seen = np.vstack([M[n : n + _CHUNK].astype(np.float64) @ Q for n in range(0, len(M), _CHUNK)])
    U, S, Vh = lapack.svd(seen)
    return U, S, Q @ Vh.T


def _by_energy(
    M: NDArray[Any], energy: float, noise: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    U, S, Vh = lapack.svd(lapack.as_float64(M))
    k = min(_enough(S, energy), int(np.count_nonzero(S > noise)))
    return U[:, :k], S[:k], Vh[:k].T


def _as_factors(update: DenseUpdate, B: NDArray[Any], A: NDArray[Any]) -> LowRankUpdate:
    dtype, shape = update.matrix.dtype, update.matrix.tensor_shape
    kernel = None if shape is None else (len(A), *shape[1:])
    return LowRankUpdate(
        module=update.module,
        A_factor=replace(_held(A, dtype), tensor_shape=kernel),
        B_factor=_held(B, dtype),
        scale=update.scale,
        kind=update.kind,
        rows=update.rows,
        fan_in_fan_out=update.fan_in_fan_out,
        flags=tuple(flag for flag in update.flags if flag != Flag.DENSE),
    )


def _distance(M: NDArray[Any], P: NDArray[Any], Q: NDArray[Any]) -> float:
    """``||M - P Q||_F``, some rows at a time."""
    rests = (
        np.linalg.norm(M[start : start + _CHUNK] - P[start : start + _CHUNK] @ Q)
        for start in range(0, len(M), _CHUNK)
    )
    return float(np.linalg.norm(list(rests)))


def _notes(patterns: Patterns[int], rows: list[ModuleTruncation], adapter: Adapter) -> tuple[str, ...]:
    notes = []
    lost = patterns.unmatched()
    if lost:
        notes.append(f"No module of the adapter matches these keys of the rank pattern: {listed(lost)}")
    notes += flag_notes({row.module: row.flags for row in rows})
    if any(Flag.DORA in update.flags for update in adapter.values()):
        notes.append(
            "DoRA's direction part, scale * B @ A, is cut; its magnitudes stay those of the whole update"
        )
    return tuple(notes)
