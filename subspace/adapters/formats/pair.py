"""A plain pair of matrices: keys ``A`` and ``B``, alone or behind module names (``layer0.A``).

Both usual layouts are read: A (r, d_in) with B (d_out, r), and A (d_in, r) with B (r, d_out). Where the shapes allow
both, the first is meant.
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _claims as dialects
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import LowRankUpdate, Scale

__all__ = ["FORMAT"]


def _modules(source: Source) -> list[str] | None:
    """Module names if every key is the A or B of one, None otherwise; an A alone is a matrix, not half a pair."""
    keys = list(source.tensors.layout)
    if not keys or keys in (["A"], ["B"]) or not all(f".{key}".endswith((".A", ".B")) for key in keys):
        return None
    return in_order({key[:-1] for key in keys})


def _claims(source: Source) -> bool:
    return _modules(source) is not None and not dialects.is_mlx_vlm(source.config)


def _read(source: Source) -> Reading:
    updates, notes = [], []
    for prefix in _modules(source) or []:
        update, transposed = _update(prefix, source)
        updates.append(update)
        if transposed:
            notes.append(f"read as A (d_in, r) and B (r, d_out): {update.module or 'the pair'}")
    return Reading(tuple(updates), notes=(*notes, scale_unknown("a plain pair does not hold it")))


def _update(prefix: str, source: Source) -> tuple[LowRankUpdate, bool]:
    layout, module = source.tensors.layout, prefix.rstrip(".")
    for has, lacks in (("A", "B"), ("B", "A")):
        if prefix + lacks not in layout:
            raise pairs.unpaired(module, has, lacks, source)
    A, B = source.factor(f"{prefix}A"), source.factor(f"{prefix}B")
    transposed = A.shape[0] != B.shape[1] and A.shape[1] == B.shape[0]
    if transposed:
        A, B = A.T, B.T
    pairs.check_rank(A, B, module, source)
    return LowRankUpdate(module, A, B, Scale(None, "unknown")), transposed


FORMAT = Format(
    name="pair",
    about="a plain pair of matrices A and B: the scale is unknown",
    claims=_claims,
    read=_read,
)
