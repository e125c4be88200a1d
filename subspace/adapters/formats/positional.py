"""SAM-LoRA and LoRA-ViT: ``w_a_000`` (r, d) and ``w_b_000`` (d, r), named by their place alone.

Index 2 i is q and 2 i + 1 is v of the i-th adapted block. q is added to the first d and v to the last d outputs of the
fused ``qkv`` layer of the block, which has 3 d, so these are its rows 0 to d and 2 d to 3 d.
"""

from __future__ import annotations

import re

from subspace.adapters.format import Format, Ignored, Reading, Source, not_an_adapter
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import Factor, LowRankUpdate, Scale

__all__ = ["FORMAT"]

_KEY = re.compile(r"w_(?P<part>[ab])_(?P<index>[0-9]{1,9})")
_KNOWN = (
    (re.compile(r"fc_\d+in_\d+out"), "a classification head, saved in full"),
    (
        re.compile(r"(^|\.)(prompt_encoder|mask_decoder|confidence_head)\w*\."),
        "a part of the model, saved in full",
    ),
)


def _claims(source: Source) -> bool:
    # a single matrix of that name is a file of the format dense
    return len(source.tensors.layout) > 1 and any(_KEY.fullmatch(key) for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    keys = _indices(source)
    if not any("b" in parts for parts in keys.values()):
        raise not_an_adapter(
            source, f"a SAM-LoRA or LoRA-ViT file with only w_a ({len(keys)} of them) and no w_b"
        )
    factors = {index: _pair(index, parts, source) for index, parts in sorted(keys.items())}
    alternating = len(factors) % 2 == 0 and all(A.shape[1] == B.shape[0] for A, B in factors.values())
    updates = tuple(_update(index, A, B, alternating) for index, (A, B) in factors.items())
    used = {key for parts in keys.values() for key in parts.values()}
    ignored, unknown = _others(source, used)
    note = (
        "Modules are named by their order, as SAM-LoRA writes them: q and v of each block, from block 0"
        if alternating
        else "Modules are named by their order, since their shapes are not those of q and v of fused qkv layers"
    )
    return Reading(updates, ignored, unknown, (note,))


def _indices(source: Source) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for key in source.tensors.layout:
        match = _KEY.fullmatch(key)
        if match is not None:
            found.setdefault(int(match["index"]), {})[match["part"]] = key
    return found


def _pair(index: int, parts: dict[str, str], source: Source) -> tuple[Factor, Factor]:
    pairs.require_both(parts, "a", "b", f"{index}", source, prefix="w_")
    A, B = source.factor(parts["a"]), source.factor(parts["b"])
    pairs.check_rank(A, B, f"{index}", source)
    return A, B


def _update(index: int, A: Factor, B: Factor, alternating: bool) -> LowRankUpdate:
    """One update, with the name that its module has in SAM.

    References
    ----------
    hitachinsk/SAMed (sam_lora_image_encoder.py, ``_LoRA_qkv.forward``) and MathieuNlp/Sam_LoRA (src/lora.py,
    ``LoRA_qkv.forward``) add ``B(A(x))`` to ``qkv[..., :d]`` for q and ``qkv[..., -d:]`` for v, with no multiplier.
    """
    scale = Scale(1.0, "no multiplier in SAM-LoRA")
    if not alternating:
        return LowRankUpdate(f"w_{index:03d}", A, B, scale)
    block, second = divmod(index, 2)
    d = B.shape[0]
    rows = (2 * d, 3 * d) if second else (0, d)
    return LowRankUpdate(f"blocks.{block}.attn.qkv[{'v' if second else 'q'}]", A, B, scale, rows=rows)


def _others(source: Source, used: set[str]) -> tuple[tuple[Ignored, ...], tuple[str, ...]]:
    ignored, unknown = pairs.other_tensors(source, used)
    known = {key: why for key in unknown for pattern, why in _KNOWN if pattern.search(key)}
    ignored += tuple(Ignored(key, why) for key, why in known.items())
    return ignored, tuple(key for key in unknown if key not in known)


FORMAT = Format(
    name="positional",
    about="SAM-LoRA, SAMed, LoRA-ViT (w_a_000, w_b_000): scale 1, as B(A(x)) is added without a multiplier (SAMed "
    "sam_lora_image_encoder.py)",
    claims=_claims,
    read=_read,
)
