"""Apple's mlx-lm: ``<path>.lora_a`` (d_in, r) and ``<path>.lora_b`` (r, d_out), transposed and in lower case.

Its ``adapter_config.json`` has the name of PEFT's and none of its fields. The lower case of the key says that factors
are transposed, since the shapes of a square projection do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["FORMAT"]

_KEY = re.compile(r"(?:(?P<module>.*)\.)?(?P<part>lora_a|lora_b)", re.DOTALL)


def _claims(source: Source) -> bool:
    return any(_KEY.fullmatch(key) for key in source.tensors.layout) and not dialects.is_gguf(source)


def _read(source: Source) -> Reading:
    modules = pairs.by_module(source.tensors.layout, _KEY)
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for module, keys in modules.items():
        magnitude = f"{module}.m"
        dora = magnitude in source.tensors.layout
        used.update(keys.values(), [magnitude] if dora else [])
        updates += _updates(module, keys, (Flag.DORA,) if dora else (), source)
    ignored, unknown = pairs.other_tensors(source, used)
    unscaled = any(update.scale.value is None for update in updates)
    notes = (scale_unknown("there is no lora_parameters.scale next to the file"),) if unscaled else ()
    return Reading(tuple(updates), ignored, unknown, notes)


def _updates(
    module: str, keys: Mapping[str, str], flags: tuple[Flag, ...], source: Source
) -> list[LowRankUpdate]:
    pairs.require_both(keys, "lora_a", "lora_b", module, source)
    dimensions = len(source.shape(keys["lora_b"]))
    A, B = source.factor(keys["lora_a"]), source.factor(keys["lora_b"])
    if dimensions == 3:
        return _experts(module, keys, source)
    if dimensions != 2 or len(source.shape(keys["lora_a"])) != 2:
        raise _shapes(module, keys, source)
    A, B = A.T, B.T
    pairs.check_rank(A, B, module, source)
    return [LowRankUpdate(module, A, B, _scale(module, A.shape[0], source), flags=flags)]


def _experts(module: str, keys: Mapping[str, str], source: Source) -> list[LowRankUpdate]:
    """One update per expert of a switch layer, named ``module[0]``, ...; their factors are not transposed.

    References
    ----------
    ml-explore/mlx-lm, mlx_lm/tuner/lora.py: ``LoRASwitchLinear`` keeps ``lora_a`` as (experts, r, d_in), or in older
    versions as (experts * r, d_in), and ``lora_b`` as (experts, d_out, r).
    """
    a, b = source.shape(keys["lora_a"]), source.shape(keys["lora_b"])
    experts, d_out, r = b
    if len(a) > 3 or math.prod(a[:-1]) != experts * r:
        raise _shapes(module, keys, source)
    A = _stacked(keys["lora_a"], (experts * r, a[-1]), source)
    B = _stacked(keys["lora_b"], (experts * d_out, r), source)
    scale = _scale(module, r, source)
    return [
        LowRankUpdate(
            module=f"{module}[{e}]",
            A_factor=A.rows(e * r, (e + 1) * r),
            B_factor=B.rows(e * d_out, (e + 1) * d_out),
            scale=scale,
            flags=(Flag.EXPERT,),
        )
        for e in range(experts)
    ]


def _stacked(key: str, shape: tuple[int, int], source: Source) -> Factor:
    dtype = source.tensors.layout[key].dtype
    return Factor(shape, dtype, lambda: source.tensors.read(key).reshape(shape))


def _shapes(module: str, keys: Mapping[str, str], source: Source) -> ShapeError:
    return ShapeError(
        f"lora_a and lora_b do not fit together: lora_a (d_in, r) is {list(source.shape(keys['lora_a']))} and "
        f"lora_b (r, d_out) is {list(source.shape(keys['lora_b']))}, in {source.place(module)}"
    )


def _scale(module: str, r: int, source: Source) -> Scale:
    """``lora_parameters.scale`` of the configuration: the multiplier itself, not alpha / r.

    References
    ----------
    ml-explore/mlx-lm, mlx_lm/tuner/utils.py ``linear_to_lora_layers`` and tuner/lora.py ``LoRALinear.__call__``.
    """
    if module in source.scales:
        return Scale(source.scales[module], "module")
    where = source.config_place
    parameters: Any = (source.config or {}).get("lora_parameters")
    if not isinstance(parameters, Mapping):
        return Scale(None, "unknown")
    declared, value = parameters.get("rank"), parameters.get("scale")
    if declared is not None and declared != r:
        raise FormatError(
            f"The configuration and the factors have different ranks: rank {shown(repr(declared))} in {where} and {r} "
            f"in the factors of module {shown(module)}; use the configuration that was saved with them"
        )
    if value is None:
        return Scale(None, "unknown")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise FormatError(
            f"Invalid lora_parameters.scale: {shown(repr(value))} is not a positive number, in {where}"
        )
    return Scale(float(value), "config scale")


FORMAT = Format(
    name="mlx",
    about="Apple mlx-lm: scale lora_parameters.scale of adapter_config.json, unknown without (mlx_lm/tuner/lora.py)",
    claims=_claims,
    read=_read,
)
