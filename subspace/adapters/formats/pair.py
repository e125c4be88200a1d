"""A plain pair of matrices: keys ``A`` and ``B``, alone or behind names of modules (``layer0.A``).

Which way round they are stored is decided by their shapes, and asked for where those allow two layouts.
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _factor_layout as layout
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _settings as settings
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import LowRankUpdate

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
    prefixes = _prefixes(source) or []
    stored = {
        module: _stored(prefix, source) for prefix, module in zip(prefixes, _modules(prefixes), strict=True)
    }
    declared = settings.declared(source)
    turned, notes = layout.oriented(stored, source, rank=declared.rank)
    scales = {module: declared.scale_of(module, A.shape[0]) for module, (A, _) in turned.items()}
    updates = [LowRankUpdate(module, A, B, scales[module]) for module, (A, B) in turned.items()]
    return Reading(tuple(updates), notes=(*notes, *declared.notes(scales, "a plain pair holds none")))


def _modules(prefixes: list[str]) -> list[str]:
    """The names of modules, without the ``lora`` of a wrapper that holds the layer and its pair side by side."""
    whole = [prefix.rstrip(".") for prefix in prefixes]
    layers = [
        name.removesuffix("lora").rstrip(".") if f".{name}".endswith(".lora") else name for name in whole
    ]
    return layers if len(set(layers)) == len(layers) else whole


def _stored(prefix: str, source: Source) -> layout.Pair:
    for has, lacks in ("AB", "BA"):
        if prefix + lacks not in source.tensors.layout:
            raise pairs.unpaired(prefix.rstrip("."), has, lacks, source)
    return source.factor(f"{prefix}A"), source.factor(f"{prefix}B")


FORMAT = Format(
    name="pair",
    about="a plain pair of matrices A and B: the scale is unknown, unless an alpha or scale is saved with them",
    claims=_claims,
    read=_read,
)
