"""Hugging Face PEFT LoRA: ``base_model.model.<module>.lora_A.weight``, with or without ``adapter_config.json``.

Also raw state dicts, which have the name of the adapter in the key (``lora_A.default.weight``), embeddings
(``lora_embedding_A``), convolutions (each group on its own), DoRA (the direction part), the experts of
``target_parameters`` and the fused layers of old PEFT.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _experts as experts
from subspace.adapters.formats import _factor_layout as layout
from subspace.adapters.formats import _fused as fused
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _peft_keys as peftkeys
from subspace.adapters.formats import _peft_modules as pefts
from subspace.adapters.formats import _settings as settings
from subspace.adapters.formats._grouped_experts import are_grouped, grouped_updates
from subspace.adapters.formats._peft_config import PeftConfig
from subspace.adapters.naming.image_models import is_undecided
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import ShapeError
from subspace.flags import Flag

__all__ = ["FORMAT"]

_KEY = peftkeys.pattern(
    "lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector",
    suffix=r"(?:\.weight)?",
    not_names="weight|bias",
)
_LORA_TYPES = (None, "LORA")


def _claims(source: Source) -> bool:
    config = source.config or {}
    if config.get("peft_type") not in _LORA_TYPES and "peft_type" in config:
        return False
    layout = source.tensors.layout
    if any(".lora_E" in f".{key}" for key in layout):
        return False
    if dialects.is_pipeline(source) or dialects.is_mlx_vlm(source.config):
        return False
    return any(
        (key.endswith(".weight") and ".lora_A." in f".{key}")
        or ".lora_embedding_A" in f".{key}"
        or (key.endswith(".weight") and ".lora_B." in f".{key}")
        or are_grouped(key)
        for key in layout
    )


def _read(source: Source) -> Reading:
    where = source.config_place
    config = PeftConfig.parse(source.config, where, outer=source.outer) if source.config is not None else None
    modules, ignored = peftkeys.sorted_by_module(source, _KEY)
    stored = {module: _stored(module, keys, source) for module, keys in modules.items()}
    said = settings.declared(source) if config is None else settings.Declared()
    stored, turned = _oriented(stored, said, source) if config is None else (stored, [])
    of, notes = pefts.targets({m: pair.sides for m, pair in stored.items()}, config, source)
    updates, used = grouped_updates(source, config)
    used |= {entry.key for entry in ignored}
    for module, pair in stored.items():
        used.update(modules[module].values())
        updates += _updates(module, pair, of[module], config or said, source)
    other, unknown = pairs.other_tensors(source, used)
    if config is not None:
        notes = config.notes() + notes
    else:
        scales = {update.module: update.scale for update in updates}
        notes = [*turned, *said.notes(scales, _no_config(modules)), *notes]
    if config and config.use_dora and not any(Flag.DORA in update.flags for update in updates):
        notes.append(f"The file has no magnitude vectors of DoRA, although use_dora is true in {where}")
    return Reading(tuple(updates), tuple(ignored) + other, unknown, tuple(notes))


def _no_config(modules: Iterable[str]) -> str:
    why = "there is no adapter_config.json next to the file"
    if any(map(is_undecided, modules)):
        why += ", and the names do not say whether an image pipeline reads it, which would apply 1"
    return why


class _Pair(NamedTuple):
    """A and B of a module as matrices, and their shapes in the file."""

    A: Factor
    B: Factor
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    embedding: bool
    flags: tuple[Flag, ...]

    @property
    def sides(self) -> pefts.Stored:
        return pefts.Stored(self.A.shape[0], self.B.shape[0], self.A.shape[1])

    @property
    def dimensions(self) -> tuple[int, int]:
        return len(self.shapes[0]), len(self.shapes[1])


def _stored(module: str, keys: dict[str, str], source: Source) -> _Pair:
    embedding = "lora_embedding_A" in keys or "lora_embedding_B" in keys
    a, b = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    for lacks in (a, b):
        if lacks not in keys:
            raise pairs.unpaired(module, next(iter(keys)), lacks, source)
    return _Pair(
        source.factor(keys[a]),
        source.factor(keys[b]),
        (source.shape(keys[a]), source.shape(keys[b])),
        embedding,
        (Flag.DORA,) if "lora_magnitude_vector" in keys else (),
    )


def _oriented(
    stored: dict[str, _Pair], said: settings.Declared, source: Source
) -> tuple[dict[str, _Pair], list[str]]:
    """Pairs under PEFT's names as A (r, d_in) and B (d_out, r), where somebody's own code stores any in another way."""
    plain = {m: (p.A, p.B) for m, p in stored.items() if p.dimensions == (2, 2) and not p.embedding}
    if source.enabled is not None or all(A.shape[0] == B.shape[1] for A, B in plain.values()):
        return stored, []
    # one pair that does not fit among others that do is a damaged one
    if any(A.shape[0] == B.shape[1] <= min(A.shape[1], B.shape[0]) for A, B in plain.values()):
        return stored, []
    turned, notes = layout.oriented(plain, source, rank=said.rank)
    return stored | {m: stored[m]._replace(A=A, B=B) for m, (A, B) in turned.items()}, notes


def _updates(
    module: str, pair: _Pair, of: pefts.Target, says: PeftConfig | settings.Declared, source: Source
) -> list[LowRankUpdate]:
    A, B = pair.A, pair.B
    config = says if isinstance(says, PeftConfig) else None
    enabled = source.enabled or (config.enable_lora if config else None)
    if pair.dimensions == (2, 3) or (enabled is not None and fused.is_fused(A, B)):
        scale = _scale(says, module, of, B.shape[1], source)
        return fused.split(A, B, of.name, scale=scale, enabled=enabled, source=source)
    if experts.are_stacked(*pair.shapes, rank=config.rank(of.matched) if config else None):
        scale = _scale(says, module, of, pair.shapes[0][1], source)
        return experts.of_stack(of.name, A, B, pair.shapes, scale)
    _check_dimensions(module, *pair.shapes, source)
    if pair.dimensions[0] > 2 and fused.is_fused(A, B):
        scale = _scale(says, module, of, A.shape[0], source)
        groups = (True,) * (A.shape[0] // B.shape[1])
        parts = fused.split(A, B, of.name, scale=scale, enabled=groups, source=source)
        return [replace(part, module=f"{of.name}[{n}]", kind="conv") for n, part in enumerate(parts)]
    pairs.check_rank(A, B, module, source)
    update = LowRankUpdate(
        module=of.name,
        A_factor=A,
        B_factor=B,
        scale=_scale(says, module, of, A.shape[0] // of.experts, source),
        kind="embedding" if pair.embedding else "conv" if pair.dimensions[0] > 2 else "linear",
        fan_in_fan_out=config.fan_in_fan_out if config and of.experts == 1 else of.transposed,
        flags=(*pair.flags, Flag.LAYER_REPLICATION) if config and config.replicated else pair.flags,
    )
    return experts.by_expert(update, of.experts) if of.experts > 1 else [update]


def _check_dimensions(module: str, A: tuple[int, ...], B: tuple[int, ...], source: Source) -> None:
    where = f"in {source.place(module)}; the file is damaged or of another format"
    if len(A) != len(B):
        raise ShapeError(f"A and B differ in their number of dimensions: {list(A)} and {list(B)}, {where}")
    if any(size != 1 for size in B[2:]):
        raise ShapeError(f"B of a convolution is not pointwise: its shape is {list(B)}, {where}")


def _scale(
    says: PeftConfig | settings.Declared, module: str, of: pefts.Target, r: int, source: Source
) -> Scale:
    """The scale by the configuration; in a model in memory, that of the layer where it has been changed."""
    if isinstance(says, PeftConfig):
        configured = says.scale(module, r, matched=of.matched)
    else:
        configured = Scale(None, "unknown") if module in source.scales else says.scale_of(module, r)
    return peftkeys.current_scale(configured, module, source)


FORMAT = Format(
    name="peft",
    about="Hugging Face PEFT: scale lora_alpha / r, or / sqrt(r) with use_rslora (peft/tuners/lora/layer.py)",
    claims=_claims,
    read=_read,
)
