"""Names that no known format has, with the word lora and markers of A and B in them, as people write them by hand.

``q_proj.w_lora_A``, ``to_k_lora_down``, ``qkv.lora_a_q.weight``, ``lora_left``: the two names of a pair differ in the
marker alone, and what is left names the module. At least one pair must have a rank below both its sides.

References
----------
MaxZanella/CLIP-LoRA, loralib/layers.py: ``LoRALayer.scaling`` is lora_alpha / sqrt(r), and ``merge_BA`` is B @ A.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from subspace.adapters.format import Format, Ignored, Note, Reading, Role, Source
from subspace.adapters.formats import _factor_layout as layout
from subspace.adapters.formats import _markers as markers
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _settings as settings
from subspace.adapters.formats._peft_types import type_by_keys
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import listed, shown

__all__ = ["FORMAT"]

_CLIP_LORA = "as the layers of CLIP-LoRA multiply by it (loralib/layers.py)"
_CLIP_LORA_LAYER = re.compile(r"layer_\d+\.")
_NUMBERS = ("alpha", "lora_alpha", "scaling", "scale", "lora_scaling", "lora_scale")
# how RWKV mixes tokens: the pairs of such a base model, called w_lora, a_lora, ..., are part of it
_RWKV = (".x_w", ".x_r", ".time_maa_w", ".time_mix_w", ".time_decay")


def _claims(source: Source) -> bool:
    keys = source.tensors.layout
    if any(f".{key}".endswith(_RWKV) for key in keys) or type_by_keys(source) is not None:
        return False
    if source.config is not None and source.config.get("peft_type", "LORA") != "LORA":
        return False
    if any(_is_low_rank(pair, source) for pair in _pairs(source)):
        return True
    # nothing but halves and pairs that do not fit: an adapter that is broken, which the reading says
    matrices = [key for key in keys if _is_matrix(key, source)]
    return len(matrices) > 1 and all(map(markers.is_marked, matrices))


def _pairs(source: Source) -> Iterator[markers.MarkedPair]:
    matrices = {key: None for key in source.tensors.layout if _is_matrix(key, source)}
    return markers.pairs_of(matrices, lambda A, B: bool(_layouts(A, B, source)))


def _is_matrix(key: str, source: Source) -> bool:
    info = source.tensors.layout[key]
    return len(info.shape) > 1 and 0 not in info.shape and info.dtype.startswith(("float", "bfloat"))


def _is_low_rank(pair: markers.MarkedPair, source: Source) -> bool:
    return any(r < min(d_in, d_out) for r, d_in, d_out in _layouts(pair.A, pair.B, source))


def _layouts(A: str, B: str, source: Source) -> list[tuple[int, int, int]]:
    """(r, d_in, d_out) in every layout in which two tensors have a product; a convolution has one layout."""
    a, b = source.shape(A), source.shape(B)
    if len(a) != len(b):
        return []
    if len(a) > 2:
        fits = a[0] == b[1] and all(size == 1 for size in b[2:])
        return [(a[0], math.prod(a[1:]), b[0])] if fits else []
    both_ways = ((a[0], b[1], a[1], b[0]), (a[1], b[0], a[0], b[1]))
    mixed = ((a[1], b[1], a[0], b[0]), (a[0], b[0], a[1], b[1]))
    return [(r, d_in, d_out) for r, same, d_in, d_out in (*both_ways, *mixed) if r == same]


def _read(source: Source) -> Reading:
    found = list(_pairs(source))
    _require_halves(found, source)
    modules = dict(zip(markers.modules_of(found), found, strict=True))
    if len(modules) < len(found):
        raise _one_name(found, source)
    modules = {module: modules[module] for module in in_order(modules)}
    clip_lora = _is_clip_lora(found, source)
    declared = settings.declared(source, square_root=_CLIP_LORA if clip_lora else None)
    stored = {module: _stored(module, pair, source) for module, pair in modules.items()}
    linear = {module: pair for module, pair in stored.items() if len(source.shape(modules[module].A)) == 2}
    turned, notes = layout.oriented(linear, source, rank=declared.rank)
    used = {key for pair in found for key in (pair.A, pair.B)}
    updates = []
    numbers: dict[str, str] = {}
    for module, (A, B) in (stored | turned).items():
        scale, key = _scale(module, modules[module], A.shape[0], declared, source)
        numbers |= {module: key} if key else {}
        kind = "linear" if module in linear else "conv"
        updates.append(LowRankUpdate(module, A, B, scale, kind=kind, flags=(Flag.GUESSED,)))
    ignored, unknown = _others(updates, used | set(numbers.values()), source)
    scales = {update.module: update.scale for update in updates}
    notes = [
        *notes,
        *_by_tensors(updates, numbers),
        *declared.notes(scales, "the file holds no alpha, nor a scale"),
    ]
    return Reading(tuple(updates), ignored, unknown, (_guessed(modules), *notes))


def _require_halves(found: list[markers.MarkedPair], source: Source) -> None:
    """Refuse names with a marker that have no other half."""
    alone = markers.halves([key for key in source.tensors.layout if _is_matrix(key, source)], found)
    if alone:
        raise ShapeError(
            f"Incomplete pair: {listed(alone)} have no other half that differs in the marker of A and B alone, in "
            f"{source.path}; the file is incomplete, or no known format has such names"
        )


def _one_name(found: list[markers.MarkedPair], source: Source) -> FormatError:
    stems = Counter(pair.stem for pair in found)
    twice = [stem for stem, times in stems.items() if times > 1]
    return FormatError(
        f"Two pairs with the names of one module: {listed(twice)}, in {source.path}; take one of each out"
    )


def _stored(module: str, pair: markers.MarkedPair, source: Source) -> layout.Pair:
    if not _layouts(pair.A, pair.B, source):
        raise ShapeError(
            f"A and B have no product: {shown(pair.A)} is {list(source.shape(pair.A))} and {shown(pair.B)} is "
            f"{list(source.shape(pair.B))}, in {source.place(module)}; no rank is common to both"
        )
    return source.factor(pair.A), source.factor(pair.B)


def _is_clip_lora(found: list[markers.MarkedPair], source: Source) -> bool:
    """Whether the file is laid out as CLIP-LoRA's ``save_lora`` does it: its names, and r and alpha in metadata."""
    if not {"metadata.r", "metadata.alpha"} <= set(source.settings):
        return False
    return all(
        pair.markers() == ("w_lora_A", "w_lora_B") and _CLIP_LORA_LAYER.match(pair.A) is not None
        for pair in found
    )


def _scale(
    module: str, pair: markers.MarkedPair, r: int, declared: settings.Declared, source: Source
) -> tuple[Scale, str | None]:
    """The multiplier of a module and the tensor that says it: its own alpha or scale, else what the settings say."""
    of_settings = declared.scale_of(module, r)
    if module in source.scales:
        return Scale(source.scales[module], "module"), None
    key = _number_of(module, pair, source)
    if key is None:
        return of_settings, None
    value = source.tensors.read_scalar(key)
    if "alpha" not in key.rpartition(".")[2].lower():
        return Scale(value, f"tensor {shown(key)}"), key
    return Scale(value / r, f"tensor {shown(key)} / r", value), key


def _number_of(module: str, pair: markers.MarkedPair, source: Source) -> str | None:
    """The tensor of one element beside a pair that its name says is the alpha or the scale."""
    parent = pair.A[: pair.A.rfind(".", 0, pair.start) + 1]
    for word in _NUMBERS:
        beside = pair.with_marker(word)
        for key in (beside, beside.removesuffix(".weight"), f"{parent}{word}", f"{module}.{word}"):
            info = source.tensors.layout.get(key)
            if info is not None and math.prod(info.shape) == 1:
                return key
    return None


def _others(
    updates: list[LowRankUpdate], used: set[str], source: Source
) -> tuple[tuple[Ignored, ...], tuple[str, ...]]:
    """The other tensors; the weights of the adapted layers are those of the base model."""
    shapes = {update.module: {(update.d_out, update.d_in), (update.d_in, update.d_out)} for update in updates}
    ignored, unknown = pairs.other_tensors(source, used)
    states = tuple(
        Ignored(key, "the state of an optimiser", Role.COPY) for key in unknown if markers.is_state(key)
    )
    return (
        tuple(_of_base(item) if _is_base_weight(item.key, shapes, source) else item for item in ignored)
        + states,
        tuple(key for key in unknown if not markers.is_state(key)),
    )


def _is_base_weight(key: str, shapes: Mapping[str, set[tuple[int, int]]], source: Source) -> bool:
    """Whether a tensor is the weight of an adapted layer, or of the layer that a wrapper of its name holds."""
    layer = key.removesuffix(".weight")
    shape = source.shape(key)
    flat = (*shape[:1], math.prod(shape[1:]))
    return any(flat in shapes.get(module, ()) for module in (layer, layer.rpartition(".")[0]))


def _of_base(item: Ignored) -> Ignored:
    return replace(item, why="a weight of the base model", role=Role.BASE)


def _by_tensors(updates: list[LowRankUpdate], numbers: Mapping[str, str]) -> list[Note]:
    """That an alpha in a tensor is taken to be divided by r, where one is."""
    alphas = [numbers[u.module] for u in updates if u.module in numbers and u.scale.alpha is not None]
    if not alphas:
        return []
    return [
        Note(
            f"The scale is taken to be alpha / r with the alpha in {listed(alphas)}, as most code has it; give `scale` "
            "if the layers multiply by something else"
        )
    ]


def _guessed(modules: Mapping[str, markers.MarkedPair]) -> Note:
    marked = dict.fromkeys(pair.markers() for pair in modules.values())
    words = listed(f"{A} as A and {B} as B" for A, B in marked)
    return Note(
        f"No known format has these names: A and B were paired by their markers ({words}), and the rest of the name is "
        "taken for the module",
        Flag.GUESSED,
    )


FORMAT = Format(
    name="by_marker",
    about="names of no known format with the word lora and markers such as A and B, down and up: scale alpha / r by an "
    "alpha in the file, alpha / sqrt(r) in CLIP-LoRA (loralib/layers.py), else unknown",
    claims=_claims,
    read=_read,
    fallback=True,
)
