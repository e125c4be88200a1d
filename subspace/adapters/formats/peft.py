"""Hugging Face PEFT LoRA: ``base_model.model.<module>.lora_A.weight``, with or without ``adapter_config.json``.

Also raw state dicts, which have the name of the adapter in the key (``lora_A.default.weight``), embeddings
(``lora_embedding_A``), convolutions (each group on its own), DoRA (the direction part), the experts of
``target_parameters`` and the fused layers of old PEFT.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from subspace.adapters.format import Format, Note, Reading, Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _fused as fused
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _peft_keys as peftkeys
from subspace.adapters.formats._experts import by_expert
from subspace.adapters.formats._peft_config import PeftConfig
from subspace.adapters.naming.image_models import is_undecided
from subspace.adapters.update import LowRankUpdate, Scale
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
        for key in layout
    )


def _read(source: Source) -> Reading:
    where = source.config_place
    config = PeftConfig.parse(source.config, where) if source.config is not None else None
    modules, ignored = peftkeys.sorted_by_module(source, _KEY)
    updates: list[LowRankUpdate] = []
    used = {entry.key for entry in ignored}
    for module, keys in modules.items():
        used.update(keys.values())
        updates += _updates(module, keys, config, source)
    other, unknown = pairs.other_tensors(source, used)
    notes: list[str] = config.notes() if config else [_no_config(modules)]
    if config and config.use_dora and not any(Flag.DORA in update.flags for update in updates):
        notes.append(f"The file has no magnitude vectors of DoRA, although use_dora is true in {where}")
    return Reading(tuple(updates), tuple(ignored) + other, unknown, tuple(notes))


def _no_config(modules: Iterable[str]) -> Note:
    why = "there is no adapter_config.json next to the file"
    if any(map(is_undecided, modules)):
        why += ", and the names do not say whether an image pipeline reads it, which would apply 1"
    return scale_unknown(why)


def _updates(
    module: str, keys: dict[str, str], config: PeftConfig | None, source: Source
) -> list[LowRankUpdate]:
    embedding = "lora_embedding_A" in keys or "lora_embedding_B" in keys
    a, b = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    for lacks in (a, b):
        if lacks not in keys:
            raise pairs.unpaired(module, next(iter(keys)), lacks, source)
    A, B = source.factor(keys[a]), source.factor(keys[b])
    dimensions = len(source.shape(keys[a])), len(source.shape(keys[b]))
    enabled = source.enabled or (config.enable_lora if config else None)
    if dimensions == (2, 3) or (enabled is not None and fused.is_fused(A, B)):
        scale = _scale(config, module, B.shape[1], source)
        return fused.split(A, B, module, scale=scale, enabled=enabled, source=source)
    _check_dimensions(module, source.shape(keys[a]), source.shape(keys[b]), source)
    if dimensions[0] > 2 and fused.is_fused(A, B):
        scale = _scale(config, module, A.shape[0], source)
        groups = (True,) * (A.shape[0] // B.shape[1])
        parts = fused.split(A, B, module, scale=scale, enabled=groups, source=source)
        return [replace(part, module=f"{module}[{n}]", kind="conv") for n, part in enumerate(parts)]
    pairs.check_rank(A, B, module, source)
    experts = config.experts(module, A.shape[0]) if config else 1
    update = LowRankUpdate(
        module=module,
        A_factor=A,
        B_factor=B,
        scale=_scale(config, module, A.shape[0] // experts, source),
        kind="embedding" if embedding else "conv" if dimensions[0] > 2 else "linear",
        fan_in_fan_out=config.fan_in_fan_out if config else None,
        flags=_flags(keys, config),
    )
    return by_expert(update, experts) if experts > 1 else [update]


def _check_dimensions(module: str, A: tuple[int, ...], B: tuple[int, ...], source: Source) -> None:
    where = f"in {source.place(module)}; the file is damaged or of another format"
    if len(A) != len(B):
        raise ShapeError(f"A and B differ in their number of dimensions: {list(A)} and {list(B)}, {where}")
    if any(size != 1 for size in B[2:]):
        raise ShapeError(f"B of a convolution is not pointwise: its shape is {list(B)}, {where}")


def _flags(keys: dict[str, str], config: PeftConfig | None) -> tuple[Flag, ...]:
    dora = (Flag.DORA,) if "lora_magnitude_vector" in keys else ()
    return (*dora, Flag.LAYER_REPLICATION) if config and config.replicated else dora


def _scale(config: PeftConfig | None, module: str, r: int, source: Source) -> Scale:
    """The scale by the configuration; in a model in memory, that of the layer where it has been changed."""
    return peftkeys.current_scale(
        config.scale(module, r) if config else Scale(None, "unknown"), module, source
    )


FORMAT = Format(
    name="peft",
    about="Hugging Face PEFT: scale lora_alpha / r, or / sqrt(r) with use_rslora (peft/tuners/lora/layer.py)",
    claims=_claims,
    read=_read,
)
