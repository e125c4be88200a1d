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
from subspace.analysis.kept_energy import CHUNK, Kept, distance, enough, kept_of, kept_of_matrix
from subspace.analysis.resolve import Loading
from subspace.errors import FormatError, ValueRangeError, located
from subspace.flags import Flag, flag_notes
from subspace.geometry import factored, lapack
from subspace.geometry.frobenius import frobenius
from subspace.geometry.rounding import float64_noise
from subspace.geometry.topk import leading
from subspace.results.truncation import ModuleTruncation, Truncation
from subspace.text import listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["truncate"]

_TOL = 1e-6  # of the leading triplets, which are found in float32


def truncate(
    source: Any,
    *,
    rank: int | None = None,
    energy: float | None = None,
    ranks: Mapping[str, int] | None = None,
    dtype: str = "keep",
    base: Any = None,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Truncation:
    """An adapter of lower rank, each ``delta_W`` replaced by its best approximation of that rank.

    Parameters
    ----------
    source : the adapter, as `load_adapter` takes it
    rank : the largest rank of any module that `ranks` does not name
    energy : the stored factors keep at least this share of every module's ``||delta_W||_F^2``, in (0, 1]; alone
    ranks : module pattern -> largest rank, matched as PEFT matches its ``rank_pattern``: first match, as a regular
        expression at the end of the name; other modules stay whole where no `rank` is given
    dtype : type that the factors will be stored in: "keep" that of each factor, "float32", "float16" or "bfloat16"
    base, scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    progress : called with (modules done, modules in all)

    Returns
    -------
    Truncation
        ``B' = U_k sqrt(S_k)`` and ``A' = sqrt(S_k) V_k^T`` under the same scale, to be stored in that type. A module
        that is not cut keeps its own factors; an untrained one gets rank 1.

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
    >>> B, A = np.diag([3.0, 4.0]), np.eye(2, 3)
    >>> cut = truncate({"q.lora_A": A, "q.lora_B": B}, rank=1)
    >>> cut.modules[0].r_after, cut.modules[0].S, cut.modules[0].error
    (1, array([4.]), 0.6)
    """
    _require_limits(rank, energy, ranks)
    adapter = Loading(base, scale, adapter_name, enable_lora, rename, layout).adapter(source)
    _require_free_start(adapter)
    patterns = Patterns(ranks or {}, where="`ranks`")
    updates: dict[str, Update] = {}
    rows = []
    for module, update in adapter.items():
        limit = patterns.match(module) or rank
        with located(f"{place(adapter.path, module)}"):
            updates[module], row = _cut(update, limit, energy, dtype)
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
    if "peft" in adapter.formats and init is not None:
        raise FormatError(
            f"Cannot cut {place(adapter.path)}, whose start depends on its rank: by init_lora_weights "
            f"{shown(repr(init))} PEFT changes the base weights; convert it to a plain LoRA first"
        )


def _cut(
    update: Update, limit: int | None, energy: float | None, dtype: str
) -> tuple[Update, ModuleTruncation]:
    if isinstance(update, DenseUpdate):
        return _cut_dense(update, limit, energy, dtype)
    lapack.refuse(update.A, name="A")
    lapack.refuse(update.B, name="B")
    if energy is None and (limit is None or limit >= update.r):
        return update, _unchanged(update, dtype)
    U, S, Vh = factored.svd(update.B, update.A)
    if not S.size:
        return _untrained(update), _row(update, 1, S, tail=0.0)
    root = np.sqrt(S)

    def cut(k: int) -> LowRankUpdate:
        return _with_factors(update, U[:, :k] * root[:k], root[:k, None] * Vh[:k])

    if energy is None:
        k = min(limit or 1, len(S))
        return (low := cut(k)), _row(
            update, k, S[:k], tail=frobenius(S[k:]), kept=kept_of(update, low, dtype)
        )
    k, kept = enough(S, energy, lambda k: kept_of(update, cut(k), dtype))
    if not kept.reaches(energy) and kept_of(update, update, dtype).reaches(energy):
        return update, _unchanged(update, dtype)
    flags = () if kept.reaches(energy) else (Flag.ENERGY_BELOW_WANTED,)
    return cut(k), _row(update, k, S[:k], tail=frobenius(S[k:]), kept=kept, flags=flags)


def _row(
    update: Update,
    r: int,
    S: NDArray[np.float64],
    *,
    tail: float,
    kept: Kept | None = None,
    flags: tuple[Flag, ...] = (),
) -> ModuleTruncation:
    """Numbers of one module from the singular values that are kept and the norm of those that are not."""
    whole = float(np.hypot(frobenius(S), tail))
    relative = tail / whole if whole > 0 else None
    scale = update.scale.value
    return ModuleTruncation(
        module=update.module,
        r_before=update.r,
        r_after=r,
        energy=None if whole == 0 or kept is None else kept.share,
        error=relative,
        error_absolute=None if scale is None else abs(scale) * tail,
        S=S,
        flags=flags if whole > 0 else (*flags, Flag.UNTRAINED),
    )


def _unchanged(update: LowRankUpdate, dtype: str) -> ModuleTruncation:
    """A module whose factors stay, and their singular values."""
    S = factored.svd(update.B, update.A)[1]
    kept = kept_of(update, update, dtype)
    return _row(update, update.r, S, tail=0.0, kept=kept, flags=(Flag.UNCHANGED,))


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
    update: DenseUpdate, limit: int | None, energy: float | None, dtype: str
) -> tuple[LowRankUpdate, ModuleTruncation]:
    """Factors of a dense delta_W; the error is measured on it, since its leading triplets may be estimates."""
    M = update.matrix.load()
    lapack.refuse(M, name="delta_W")
    U, S, V = _leading(M, limit) if energy is None else _all(M)
    noise = max(dense_noise(update, M), float64_noise(M.shape, S.max(initial=0.0)))
    above = S[noise < S]
    root = np.sqrt(above)

    def cut(k: int) -> LowRankUpdate:
        if not len(above):
            # of an untrained module no direction may have been found
            return _as_factors(update, np.zeros((len(M), 1)), V[:, :1].T if V.size else np.eye(1, M.shape[1]))
        return _as_factors(update, U[:, :k] * root[:k], root[:k, None] * V[:, :k].T)

    def kept_at(k: int) -> Kept:
        return kept_of_matrix(M, cut(k), dtype)

    whole = len(above)
    k, kept = (whole, kept_at(whole)) if energy is None or not whole else enough(above, energy, kept_at)
    flags = (
        (Flag.DENSE,)
        if energy is None or not whole or kept.reaches(energy)
        else (Flag.DENSE, Flag.ENERGY_BELOW_WANTED)
    )
    tail = distance(M, U[:, :k] * S[:k], V[:, :k].T)
    return cut(k), _row(update, max(k, 1), above[:k], tail=tail, kept=kept, flags=flags)


def _leading(M: NDArray[Any], limit: int | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Leading triplets U, S, V: the span of V as float32 passes over M find it, what M does to it in float64."""
    if limit is None:
        raise FormatError("No rank for a dense delta_W; give `rank`")
    found = leading(M, limit, tol=_TOL)
    if found.exact:
        return found.U, found.S, found.V
    Q, _ = lapack.qr(found.V)
    seen = np.vstack([M[n : n + CHUNK].astype(np.float64) @ Q for n in range(0, len(M), CHUNK)])
    U, S, Vh = lapack.svd(seen)
    return U, S, Q @ Vh.T


def _all(M: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    U, S, Vh = lapack.svd(lapack.as_float64(M))
    return U, S, Vh.T


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
