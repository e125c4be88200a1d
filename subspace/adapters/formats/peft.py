"""Hugging Face PEFT LoRA: ``base_model.model.<module>.lora_A.weight``, with or without ``adapter_config.json``.

Also raw ``state_dict()`` dumps that carry the adapter's name in the key (``lora_A.default.weight``), embeddings
(``lora_embedding_A``), convolutions (those of several groups one by one), DoRA (the direction part), the experts of
``target_parameters`` and the fused layers of old PEFT.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import replace

from subspace.adapters.choice import chosen_adapter
from subspace.adapters.format import Format, Ignored, Reading, Role, Source, scale_unknown
from subspace.adapters.formats import _claims as dialects
from subspace.adapters.formats import _fused as fused
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats._experts import by_expert
from subspace.adapters.formats._peft_config import PeftConfig
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["FORMAT"]

_KEY = re.compile(
    r"(?:(?P<module>.*)\.)?lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(?:\.(?P<name>(?!weight$|bias$)[^.]+))?(?P<weight>\.weight)?",
    re.DOTALL,
)
_PREFIX = "base_model.model."
_COPIES = re.compile(r"\.(?:modules_to_save(?:\.[^.]+)?|original_module)(?=\.|$)")
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
    where = source.config_path or "the metadata"
    config = PeftConfig.parse(source.config, where) if source.config is not None else None
    modules, ignored = _sorted_by_module(source)
    updates: list[LowRankUpdate] = []
    used = {entry.key for entry in ignored}
    for module, keys in modules.items():
        used.update(keys.values())
        updates += _updates(module, keys, config, source)
    other, unknown = pairs.other_tensors(source, used)
    notes: list[str] = config.notes() if config else [scale_unknown("no adapter_config.json beside the file")]
    if config and config.use_dora and not any(Flag.DORA in update.flags for update in updates):
        notes.append(f"use_dora is true in {where} but the file has no magnitude vectors")
    return Reading(tuple(updates), tuple(ignored) + other, unknown, tuple(notes))


def _sorted_by_module(source: Source) -> tuple[dict[str, dict[str, str]], list[Ignored]]:
    """Part -> key of each module of the chosen adapter, and the copies that `modules_to_save` makes."""
    found: dict[str | None, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    copies: list[str] = []
    for key in source.tensors.layout:
        match = _KEY.fullmatch(key)
        if match is None:
            continue
        module = (match["module"] or "").removeprefix(_PREFIX)
        if _COPIES.search(f".{module}"):
            copies.append(key)
        else:
            _add(found[match["name"]][module], match["part"], key, source)
    modules = found[chosen_adapter(found, source.adapter_name, source.path)] if found else {}
    ignored = [Ignored(key, "a copy that PEFT keeps for modules_to_save", Role.COPY) for key in copies]
    for name, others in found.items():
        if others is not modules:
            why = f"belongs to the adapter {shown(name or '(unnamed)')}"
            ignored += [
                Ignored(key, why, Role.OTHER_ADAPTER) for keys in others.values() for key in keys.values()
            ]
    return dict(modules), ignored


def _add(keys: dict[str, str], part: str, key: str, source: Source) -> None:
    if keys.setdefault(part, key) != key:
        raise FormatError(
            f"a module must be adapted once: got {shown(keys[part])} and {shown(key)}, in {source.path}; "
            "take one of them out"
        )


def _updates(
    module: str, keys: dict[str, str], config: PeftConfig | None, source: Source
) -> list[LowRankUpdate]:
    embedding = "embedding_A" in keys or "embedding_B" in keys
    a, b = ("embedding_A", "embedding_B") if embedding else ("A", "B")
    if a not in keys or b not in keys:
        has, lacks = (a, b) if a in keys else (b, a)
        raise pairs.unpaired(module, f"lora_{has}", f"lora_{lacks}", source)
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
    where = f"in module {shown(module)} of {source.path}; the file is damaged or of another format"
    if len(A) != len(B):
        raise ShapeError(
            f"A and B must have as many dimensions as each other: got {list(A)} and {list(B)}, {where}"
        )
    if any(size != 1 for size in B[2:]):
        raise ShapeError(f"B of a convolution must be pointwise: got {list(B)}, {where}")


def _flags(keys: dict[str, str], config: PeftConfig | None) -> tuple[Flag, ...]:
    dora = (Flag.DORA,) if "magnitude_vector" in keys else ()
    return (*dora, Flag.LAYER_REPLICATION) if config and config.replicated else dora


def _scale(config: PeftConfig | None, module: str, r: int, source: Source) -> Scale:
    """Scale by the configuration, or the one that a live layer applies where it has been changed."""
    told = config.scale(module, r) if config else Scale(None, "unknown")
    live = source.scales.get(module)
    if live is None or (told.value is not None and math.isclose(told.value, live, rel_tol=1e-9)):
        return told
    return Scale(live, "module")


FORMAT = Format(
    name="peft",
    about="Hugging Face PEFT: scale lora_alpha / r, or / sqrt(r) with use_rslora (peft/tuners/lora/layer.py)",
    claims=_claims,
    read=_read,
)
