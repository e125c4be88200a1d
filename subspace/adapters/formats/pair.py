"""A plain pair of matrices: keys ``A`` and ``B``, alone or behind names of modules (``layer0.A``).

Two layouts are read: A (r, d_in) with B (d_out, r), and A (d_in, r) with B (r, d_out). Where the shapes allow both,
it is the first.
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.text import listed

__all__ = ["FORMAT"]


def _prefixes(source: Source) -> list[str] | None:
    """Prefixes of the keys if each is an A or B, else None; a single A is a matrix, not half a pair."""
    keys = list(source.tensors.layout)
    if not keys or keys in (["A"], ["B"]) or not all(f".{key}".endswith((".A", ".B")) for key in keys):
        return None
    return in_order({key[:-1] for key in keys})


def _claims(source: Source) -> bool:
    return _prefixes(source) is not None and not dialects.is_mlx_vlm(source.config)


def _read(source: Source) -> Reading:
    updates, turned = [], []
    for prefix in _prefixes(source) or []:
        update, transposed = _update(prefix, source)
        updates.append(update)
        if transposed:
            turned.append(update.module or "the pair")
    notes = [f"A is read as (d_in, r) and B as (r, d_out) for {listed(turned)}"] if turned else []
    return Reading(tuple(updates), notes=(*notes, scale_unknown("a plain pair holds none")))


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
