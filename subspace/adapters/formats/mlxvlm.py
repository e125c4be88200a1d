"""mlx-vlm: ``<path>.A`` (d_in, r) and ``<path>.B`` (r, d_out), with a configuration of rank and alpha.

Alpha is the multiplier itself, not divided by the rank. Without the configuration, the same keys are a plain pair.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["FORMAT"]

_KEY = re.compile(r"(?:(?P<module>.*)\.)?(?:(?P<plain>[AB])|lora_(?P<named>[AB])\.[^.]+\.weight)", re.DOTALL)

_LARGEST = 1e30


def _claims(source: Source) -> bool:
    return dialects.is_mlx_vlm(source.config) and any(_KEY.fullmatch(key) for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    for key in source.tensors.layout:
        match = _KEY.fullmatch(key)
        if match is not None:
            modules[match["module"] or ""][match["plain"] or match["named"]] = key
    updates = tuple(_update(module, keys, source) for module, keys in modules.items())
    used = {key for keys in modules.values() for key in keys.values()}
    return Reading(updates, *pairs.other_tensors(source, used))


def _update(module: str, keys: Mapping[str, str], source: Source) -> LowRankUpdate:
    pairs.require_both(keys, "A", "B", module, source)
    A, B = source.factor(keys["A"]).T, source.factor(keys["B"]).T
    pairs.check_rank(A, B, module, source)
    return LowRankUpdate(module, A, B, _scale(module, A.shape[0], source))


def _scale(module: str, r: int, source: Source) -> Scale:
    """``alpha`` of the configuration, which is the multiplier.

    References
    ----------
    Blaizzy/mlx-vlm, mlx_vlm/trainer/lora.py: ``LoRaLayer.__call__`` adds ``alpha * (x @ A) @ B``; trainer/utils.py:
    ``apply_lora_layers`` takes rank and alpha from adapter_config.json.
    """
    where, config = source.config_place, source.config or {}
    if config["rank"] != r:
        raise FormatError(
            f"The configuration and the factors have different ranks: rank {shown(repr(config['rank']))} in {where} "
            f"and {r} in the factors of module {shown(module)}; use the configuration that was saved with them"
        )
    alpha = config["alpha"]
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < _LARGEST:
        raise FormatError(f"Invalid alpha: {shown(repr(alpha))} is not a positive number, in {where}")
    return Scale(float(alpha), "config alpha", float(alpha))


FORMAT = Format(
    name="mlxvlm",
    about="mlx-vlm, A (d_in, r) and B (r, d_out): scale alpha of adapter_config.json, not divided by the rank "
    "(mlx_vlm/trainer/lora.py, LoRaLayer)",
    claims=_claims,
    read=_read,
)
