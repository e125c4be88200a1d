"""LitGPT: loralib's keys, with q, k and v of one layer in one pair and groups of unequal sizes (``attn.qkv.lora_A``).

``lora_A`` is (r * groups, n_embd) and ``lora_B`` (sum of the groups' sizes, r). Sizes, groups and scale are in
``model_config.yaml`` and ``hyperparameters.yaml``, which LitGPT writes beside ``lit_model.pth.lora``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _claims as dialects
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats._flat_yaml import flat_yaml
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import FormatError
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["FORMAT"]

_KEY = re.compile(r"(?:(?P<module>.*)\.)?lora_(?P<part>[AB])", re.DOTALL)
_QKV = re.compile(r"(?P<parent>(?:.*\.)?attn)\.(?:attn|qkv)", re.DOTALL)
_GROUPS = ("q", "k", "v")
_FILES = ("model_config.yaml", "hyperparameters.yaml")


def _read(source: Source) -> Reading:
    modules = pairs.by_module(source.tensors.layout, _KEY)
    config = _beside(source)
    updates: list[LowRankUpdate] = []
    for module, keys in modules.items():
        updates += _updates(module, keys, config, source)
    used = {key for keys in modules.values() for key in keys.values()}
    notes: list[str] = []
    if any(update.scale.value is None for update in updates):
        notes.append(scale_unknown("no lora_alpha, which LitGPT keeps in hyperparameters.yaml"))
    if any(Flag.INTERLEAVED in update.flags for update in updates):
        notes.append("q, k and v of attn.attn are interleaved by heads in the base, in LitGPT before 0.5.4")
    return Reading(tuple(updates), *pairs.other_tensors(source, used), tuple(notes))


def _beside(source: Source) -> dict[str, str]:
    """Top-level values of the configurations that lie beside the file."""
    if source.tensors.container == "memory":
        return {}
    from pathlib import Path

    folder = Path(source.tensors.path).parent
    return {name: value for file in _FILES for name, value in flat_yaml(folder / file).items()}


def _updates(
    module: str, keys: Mapping[str, str], config: Mapping[str, str], source: Source
) -> list[LowRankUpdate]:
    for has, lacks in (("A", "B"), ("B", "A")):
        if lacks not in keys:
            raise pairs.unpaired(module, f"lora_{has}", f"lora_{lacks}", source)
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
    told = source.groups.get(module, source.enabled)
    if told is None and all(f"lora_{name}" in config for name in ("query", "key", "value")):
        told = tuple(config[f"lora_{name}"] == "true" for name in ("query", "key", "value"))
    if told is None:
        return (0, 1, 2) if groups == 3 else None
    if len(told) != 3 or sum(told) != groups:
        raise FormatError(
            f"q, k and v must be as many groups as the factors have: got {sum(told)} of {len(told)} and {groups}, "
            f"in module {shown(module)} of {source.path}; say which with --enable-lora"
        )
    return tuple(place for place, on in enumerate(told) if on)


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
    FormatError : the shapes allow several answers and nothing beside the file decides
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
    # no grouped queries: every group has as many rows as the layer has inputs
    elif q is None and rows == groups * A.shape[1]:
        return [(place, A.shape[1]) for place in places]
    raise FormatError(
        f"the sizes of q, k and v must be known: got lora_B {list(B.shape)} of {groups} groups, in module "
        f"{shown(module)} of {source.path}; put LitGPT's model_config.yaml and hyperparameters.yaml beside the file"
    )


def _q_size(module: str, config: Mapping[str, str], source: Source) -> int | None:
    """Outputs of q: by the configuration, or by the inputs of the block's own attn.proj."""
    try:
        return int(config["n_head"]) * int(config["head_size"])
    except (KeyError, ValueError):
        match = _QKV.fullmatch(module)
        key = f"{match['parent']}.proj.lora_A" if match else ""
        return source.shape(key)[-1] if key in source.tensors.layout else None


def _first_row(place: int, sizes: Mapping[int | None, int], config: Mapping[str, str]) -> int | None:
    """First row of q, k or v in the fused weight, None where the size of a group before it is not known."""
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
            f"lora_alpha must be a number: got {alpha}, in hyperparameters.yaml beside {source.path}"
        )
    if declared != r:
        raise FormatError(
            f"configuration and factors must agree on the rank: got lora_r = {declared} in hyperparameters.yaml and "
            f"{r} in the factors of module {shown(module)} of {source.path}"
        )
    return Scale(alpha / r, "config alpha/r", alpha)


FORMAT = Format(
    name="litgpt",
    about="LitGPT, fused attn.qkv: scale lora_alpha / lora_r of hyperparameters.yaml, unknown without "
    "(litgpt 0.5, litgpt/lora.py)",
    claims=dialects.is_litgpt,
    read=_read,
)
