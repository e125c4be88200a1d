"""llama.cpp: ``blk.0.attn_q.weight.lora_a`` (r, d_in) and ``.lora_b`` (d_out, r) in a GGUF file.

Modules have the names of llama.cpp. Experts are stacked along the first dimension; ``lora_a`` of the embedding is
(vocabulary, r).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping

from subspace.adapters.format import Format, Ignored, Reading, Source, not_an_adapter, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.naming.writers.gguf import UNPERMUTED
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import listed, shown

__all__ = ["FORMAT"]

_KEY = re.compile(r"(?P<module>.+)\.weight\.lora_(?P<part>[ab])", re.DOTALL)
_ALPHA = "adapter.lora.alpha"
_EMBEDDING = "token_embd"
_PERMUTED = re.compile(r"blk\.\d+\.attn_[qk]")


def _claims(source: Source) -> bool:
    return source.tensors.container == "gguf" or dialects.is_gguf(source)


def _read(source: Source) -> Reading:
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    for key in source.tensors.layout:
        match = _KEY.fullmatch(key)
        if match is not None:
            modules[match["module"]][match["part"]] = key
    if not modules:
        raise not_an_adapter(source, "a GGUF file without lora_a and lora_b, which is a model")
    updates: list[LowRankUpdate] = []
    for module, keys in modules.items():
        updates += _updates(module, keys, source)
    ignored, unknown = pairs.other_tensors(source, {k for keys in modules.values() for k in keys.values()})
    norms = [key for key in unknown if "_norm" in key]
    ignored += tuple(Ignored(key, "the weight of a norm layer, saved in full") for key in norms)
    return Reading(
        tuple(updates), ignored, tuple(key for key in unknown if key not in norms), _notes(updates, source)
    )


def _notes(updates: list[LowRankUpdate], source: Source) -> tuple[str, ...]:
    notes: list[str] = []
    if any(update.scale.value is None for update in updates):
        notes.append(scale_unknown(f"there is no {_ALPHA} in the file"))
    types = sorted(set(getattr(source.tensors, "quantised", {}).values()))
    if types:
        notes.append(f"Factors are quantised ({listed(types)}), so their numbers are rounded")
    if _may_be_permuted(source) and any(_PERMUTED.fullmatch(update.module) for update in updates):
        notes.append(
            "The rows of B of q and k may be in another order, since llama.cpp reorders them for some models"
        )
    return tuple(notes)


def _may_be_permuted(source: Source) -> bool:
    return source.tensors.metadata.get("general.architecture") not in UNPERMUTED


def _updates(module: str, keys: Mapping[str, str], source: Source) -> list[LowRankUpdate]:
    """One update, or one per expert.

    References
    ----------
    ggml-org/llama.cpp, convert_lora_to_gguf.py: ``modify_tensors`` ("we only need to transpose token_embd.lora_a").
    """
    pairs.require_both(keys, "a", "b", module, source, prefix="lora_")
    a, b = source.shape(keys["a"]), source.shape(keys["b"])
    if len(a) != len(b) or not 2 <= len(a) <= 3 or (len(a) == 3 and a[0] != b[0]):
        raise ShapeError(
            f"lora_a and lora_b are neither two matrices nor two stacks of equal length: their shapes are {list(a)} "
            f"and {list(b)}, in {source.place(module)}"
        )
    A, B = source.factor(keys["a"]), source.factor(keys["b"])
    scale = _scale(module, b[-1], source)
    if len(a) == 3:
        return _experts(module, _stacked(keys["a"], source), _stacked(keys["b"], source), a[0], scale, source)
    embedding = module == _EMBEDDING
    A = A.T if embedding else A
    pairs.check_rank(A, B, module, source)
    return [LowRankUpdate(module, A, B, scale, kind="embedding" if embedding else "linear")]


def _experts(
    module: str, A: Factor, B: Factor, experts: int, scale: Scale, source: Source
) -> list[LowRankUpdate]:
    r, d_out = A.shape[0] // experts, B.shape[0] // experts
    updates = [
        LowRankUpdate(
            module=f"{module}[{e}]",
            A_factor=A.rows(e * r, (e + 1) * r),
            B_factor=B.rows(e * d_out, (e + 1) * d_out),
            scale=scale,
            flags=(Flag.EXPERT,),
        )
        for e in range(experts)
    ]
    pairs.check_rank(updates[0].A_factor, updates[0].B_factor, module, source)
    return updates


def _stacked(key: str, source: Source) -> Factor:
    """A tensor (experts, rows, columns) as a matrix (experts * rows, columns)."""
    n, rows, columns = source.shape(key)
    shape = (n * rows, columns)
    return Factor(shape, source.tensors.layout[key].dtype, lambda: source.tensors.read(key).reshape(shape))


def _scale(module: str, r: int, source: Source) -> Scale:
    """``alpha / r``; an alpha of 0 means r.

    References
    ----------
    ggml-org/llama.cpp, src/llama-adapter.h: ``llama_adapter_lora_weight::get_scale``.
    """
    if module in source.scales:
        return Scale(source.scales[module], "module")
    text = source.tensors.metadata.get(_ALPHA)
    if text is None:
        return Scale(None, "unknown")
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not math.isfinite(alpha):
        raise FormatError(f"Invalid {_ALPHA}: {shown(text)} is not a finite number, in {source.path}")
    return Scale(alpha / r if alpha else 1.0, "metadata alpha/r", alpha)


FORMAT = Format(
    name="gguf",
    about="llama.cpp, lora_a and lora_b in GGUF (extra gguf): scale adapter.lora.alpha / r "
    "(src/llama-adapter.h, get_scale)",
    claims=_claims,
    read=_read,
)
