"""LitGPT: loralib's keys, with q, k and v in one pair and groups of different sizes (``attn.qkv.lora_A``).

``lora_A`` is (r * groups, n_embd) and ``lora_B`` (sum of the sizes, r). Sizes, groups and scale are in
``model_config.yaml`` and ``hyperparameters.yaml``, which LitGPT writes next to ``lit_model.pth.lora``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats._yaml_settings import yaml_settings
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import FormatError
from subspace.flags import Flag

__all__ = ["FORMAT"]

_KEY = re.compile(r"(?:(?P<module>.*)\.)?lora_(?P<part>[AB])", re.DOTALL)
_QKV = re.compile(r"(?P<parent>(?:.*\.)?attn)\.(?:attn|qkv)", re.DOTALL)
_GROUPS = ("q", "k", "v")
_FILES = ("model_config.yaml", "hyperparameters.yaml")


def _read(source: Source) -> Reading:
    modules = pairs.by_module(source.tensors.layout, _KEY)
    config = _settings(source)
    updates: list[LowRankUpdate] = []
    for module, keys in modules.items():
        updates += _updates(module, keys, config, source)
    used = {key for keys in modules.values() for key in keys.values()}
    notes: list[str] = []
    if any(update.scale.value is None for update in updates):
        notes.append(scale_unknown("there is no lora_alpha in a hyperparameters.yaml next to the file"))
    if any(Flag.INTERLEAVED in update.flags for update in updates):
        notes.append(
            "The rows of q, k and v are interleaved by heads in the base, as in LitGPT before 0.5.4 (attn.attn)"
        )
    return Reading(tuple(updates), *pairs.other_tensors(source, used), tuple(notes))


def _settings(source: Source) -> dict[str, str]:
    """LitGPT's settings in the files next to that of the adapter, empty without them."""
    if source.tensors.container == "memory":
        return {}
    from pathlib import Path

    folder = Path(source.tensors.path).parent
    return {name: value for file in _FILES for name, value in yaml_settings(folder / file).items()}


def _updates(
    module: str, keys: Mapping[str, str], config: Mapping[str, str], source: Source
) -> list[LowRankUpdate]:
    pairs.require_both(keys, "A", "B", module, source, prefix="lora_")
    A, B = source.factor(keys["A"]), source.factor(keys["B"])
    scale = _scale(module, B.shape[1], config, source)
    if _QKV.fullmatch(module) is not None and A.shape[0] % B.shape[1] == 0:
        return _split(module, A, B, scale, config, source)
    pairs.check_rank(A, B, module, source)
    return [LowRankUpdate(module, A, B, scale)]


def _split(
    module: str, A: Factor, B: Factor, scale: Scale, config: Mapping[str, str], source: Source
) -> list[LowRankUpdate]:
    """One update per group of q, k and v, in the order of the rows of B.

    References
    ----------
    Lightning-AI/litgpt 0.5, litgpt/lora.py: ``LoRAQKVLinear.__init__`` (``qkv_shapes``) and ``conv1d``; the rows in
    the base are q, k, v since its pull request 1013, which renamed ``attn.attn`` to ``attn.qkv``.
    """
    r = B.shape[1]
    groups = A.shape[0] // r
    enabled = _enabled(module, groups, config, source)
    sizes = _sizes(module, A, B, enabled, config, source)
    contiguous = module.endswith(".qkv")
    flags = (Flag.FUSED,) if contiguous else (Flag.FUSED, Flag.INTERLEAVED, Flag.GROUP_UNKNOWN)
    updates, row = [], 0
    for n, (place, size) in enumerate(sizes):
        start = None if place is None else _first_row(place, dict(sizes), config)
        known = contiguous and start is not None
        updates.append(
            LowRankUpdate(
                module=f"{module}[{n if place is None else _GROUPS[place]}]",
                A_factor=A.rows(n * r, (n + 1) * r),
                B_factor=B.rows(row, row + size),
                scale=scale,
                rows=(start, start + size) if known and start is not None else None,
                flags=flags if known or not contiguous else (*flags, Flag.GROUP_UNKNOWN),
            )
        )
        row += size
    return updates


def _enabled(module: str, groups: int, config: Mapping[str, str], source: Source) -> tuple[int, ...] | None:
    """Places of the adapted groups among q, k, v; None if it is not known which they are."""
    enabled = source.groups.get(module, source.enabled)
    if enabled is None and all(f"lora_{name}" in config for name in ("query", "key", "value")):
        enabled = tuple(config[f"lora_{name}"].lower() == "true" for name in ("query", "key", "value"))
    if enabled is None:
        return (0, 1, 2) if groups == 3 else None
    if len(enabled) != 3 or sum(enabled) != groups:
        raise FormatError(
            f"The adapted groups of q, k and v do not fit the factors: {sum(enabled)} of {len(enabled)} are enabled "
            f"and the factors have {groups}, in {source.place(module)}; say which with `enable_lora`"
        )
    return tuple(place for place, on in enumerate(enabled) if on)


def _sizes(
    module: str,
    A: Factor,
    B: Factor,
    enabled: tuple[int, ...] | None,
    config: Mapping[str, str],
    source: Source,
) -> list[tuple[int | None, int]]:
    """(place among q, k, v; rows of B) of each group.

    Raises
    ------
    FormatError : the shapes allow several answers, and no settings next to the file decide
    """
    groups, rows = A.shape[0] // B.shape[1], B.shape[0]
    places: tuple[int | None, ...] = enabled if enabled is not None else (None,) * groups
    if groups == 1:
        return [(places[0], rows)]
    q = _q_size(module, config, source)
    if enabled is not None and q is not None:
        kv, rest = divmod(rows - q if 0 in enabled else rows, sum(place > 0 for place in enabled))
        if rest == 0 and 0 < kv <= q:
            return [(place, kv if place else q) for place in enabled]
    # without grouped queries, each group has as many rows as the layer has inputs
    elif q is None and rows == groups * A.shape[1]:
        return [(place, A.shape[1]) for place in places]
    raise FormatError(
        f"Cannot tell the sizes of q, k and v: lora_B is {list(B.shape)} and has {groups} groups, in "
        f"{source.place(module)}; keep LitGPT's model_config.yaml and hyperparameters.yaml next to the file"
    )


def _q_size(module: str, config: Mapping[str, str], source: Source) -> int | None:
    """Outputs of q, by the settings or by the inputs of attn.proj of the same block; None if unknown."""
    try:
        return int(config["n_head"]) * int(config["head_size"])
    except (KeyError, ValueError):
        match = _QKV.fullmatch(module)
        key = f"{match['parent']}.proj.lora_A" if match else ""
        return source.shape(key)[-1] if key in source.tensors.layout else None


def _first_row(place: int, sizes: Mapping[int | None, int], config: Mapping[str, str]) -> int | None:
    """First row of q, k or v in the fused weight; None where the size of a group before it is unknown."""
    kv = sizes.get(1, sizes.get(2))
    try:
        q = sizes.get(0) or int(config["n_head"]) * int(config["head_size"])
    except (KeyError, ValueError):
        q = None
    if place == 0:
        return 0
    return None if q is None or kv is None else q + (place - 1) * kv


def _scale(module: str, r: int, config: Mapping[str, str], source: Source) -> Scale:
    """``lora_alpha / lora_r`` of hyperparameters.yaml.

    References
    ----------
    Lightning-AI/litgpt 0.5, litgpt/lora.py: ``LoRALinear.scaling``; finetune/lora.py saves keys with ``lora_`` only.
    """
    if module in source.scales:
        return Scale(source.scales[module], "module")
    try:
        alpha, declared = float(config["lora_alpha"]), int(config["lora_r"])
    except (KeyError, ValueError):
        return Scale(None, "unknown")
    if not math.isfinite(alpha):
        raise FormatError(
            f"Invalid lora_alpha: {alpha} is not a finite number, in hyperparameters.yaml next to {source.path}"
        )
    if declared != r:
        raise FormatError(
            f"The settings and the factors have different ranks: lora_r = {declared} in hyperparameters.yaml and {r} "
            f"in {source.place(module)}; keep the settings that the adapter was trained with next to it"
        )
    return Scale(alpha / r, "config alpha/r", alpha)


FORMAT = Format(
    name="litgpt",
    about="LitGPT, fused attn.qkv: scale lora_alpha / lora_r of hyperparameters.yaml, unknown without "
    "(litgpt 0.5, litgpt/lora.py)",
    claims=dialects.is_litgpt,
    read=_read,
)
