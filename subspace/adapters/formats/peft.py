"""Hugging Face PEFT LoRA: ``base_model.model.<module>.lora_A.weight``, with or without ``adapter_config.json``.

Also raw ``state_dict()`` dumps that carry the adapter's name in the key (``lora_A.default.weight``), embeddings
(``lora_embedding_A``), convolutions, DoRA (the direction part) and the fused layers of old PEFT.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from subspace.adapters import fused, pairs
from subspace.adapters.format import Format, Ignored, Reading, Source
from subspace.adapters.peft_config import PeftConfig
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError, shown

__all__ = ["FORMAT"]

_KEY = re.compile(
    r"(?:(?P<module>.*)\.)?lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(?:\.(?P<name>(?!weight$|bias$)[^.]+))?(?P<weight>\.weight)?",
    re.DOTALL,
)
_PREFIX = "base_model.model."
_COPIES = re.compile(r"\.(?:modules_to_save(?:\.[^.]+)?|original_module)(?=\.|$)")
_LORA_TYPES = (None, "LORA")


@dataclass
class _Parts:
    """Keys of one module of one adapter."""

    keys: dict[str, str] = field(default_factory=dict)


def _claims(source: Source) -> bool:
    config = source.config or {}
    if config.get("peft_type") not in _LORA_TYPES and "peft_type" in config:
        return False
    layout = source.tensors.layout
    if any(".lora_E" in f".{key}" for key in layout):
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
    for module, parts in modules.items():
        used.update(parts.keys.values())
        updates += _updates(module, parts.keys, config, source)
    other, unknown = pairs.other_tensors(source, used)
    notes = config.notes() if config else ["the scale is unknown: no adapter_config.json beside the file"]
    if config and config.use_dora and not any("dora" in update.flags for update in updates):
        notes.append(f"use_dora is true in {where} but the file has no magnitude vectors")
    return Reading(tuple(updates), tuple(ignored) + other, unknown, tuple(notes))


def _sorted_by_module(source: Source) -> tuple[dict[str, _Parts], list[Ignored]]:
    """Keys of the chosen adapter by module, and the copies that `modules_to_save` makes."""
    found: dict[str | None, dict[str, _Parts]] = defaultdict(lambda: defaultdict(_Parts))
    copies: list[tuple[str, str]] = []
    for key in source.tensors.layout:
        match = _KEY.fullmatch(key)
        if match is None:
            continue
        module = (match["module"] or "").removeprefix(_PREFIX)
        if _COPIES.search(f".{module}"):
            copies.append((key, module))
        else:
            found[match["name"]][module].keys[match["part"]] = key
    modules = found[_chosen(source, found)] if found else {}
    ignored = [Ignored(key, "a copy that PEFT keeps for modules_to_save") for key, _ in copies]
    for name, others in found.items():
        if others is not modules:
            ignored += [
                Ignored(k, f"belongs to the adapter {shown(name)}")
                for p in others.values()
                for k in p.keys.values()
            ]
    return dict(modules), ignored


def _chosen(source: Source, found: dict[str | None, dict[str, _Parts]]) -> str | None:
    names = list(found)
    if source.adapter_name is not None and source.adapter_name in names:
        return source.adapter_name
    if len(names) > 1 or (source.adapter_name is not None and names != [None]):
        listed = ", ".join(shown(name or "(unnamed)") for name in names)
        raise FormatError(
            f"one adapter must be chosen: {source.path} holds {len(names)} ({listed}); give one with --adapter-name"
        )
    return names[0]


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
    if dimensions[0] != dimensions[1]:
        raise ShapeError(
            f"A and B must have as many dimensions as each other: got {list(source.shape(keys[a]))} and "
            f"{list(source.shape(keys[b]))}, in module {shown(module)} of {source.path}"
        )
    if dimensions[0] > 2 and any(size != 1 for size in source.shape(keys[b])[2:]):
        raise ShapeError(
            f"B of a convolution must be pointwise: got {list(source.shape(keys[b]))}, "
            f"in module {shown(module)} of {source.path}"
        )
    pairs.check_rank(A, B, module, source)
    return [
        LowRankUpdate(
            module=module,
            A_factor=A,
            B_factor=B,
            scale=_scale(config, module, A.shape[0], source),
            kind="embedding" if embedding else "conv" if dimensions[0] > 2 else "linear",
            fan_in_fan_out=config.fan_in_fan_out if config else None,
            flags=("dora",) if "magnitude_vector" in keys else (),
        )
    ]


def _scale(config: PeftConfig | None, module: str, r: int, source: Source) -> Scale:
    if module in source.scales:
        return Scale(source.scales[module], "module")
    return config.scale(module, r) if config else Scale(None, "unknown")


FORMAT = Format(
    name="peft",
    about="Hugging Face PEFT: scale lora_alpha / r, or / sqrt(r) with use_rslora (peft/tuners/lora/layer.py)",
    claims=_claims,
    read=_read,
)
