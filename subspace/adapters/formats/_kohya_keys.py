"""Modules with kohya's keys, as sd-scripts and LyCORIS write them: a pair, a Tucker convolution, or a full change.

Two formats read them: files of such modules alone, and files of LyCORIS that have LoHa or LoKr modules too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from subspace.adapters.format import Ignored, Source
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _multiplicative as multiplicative
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _structured as structured
from subspace.adapters.update import DenseUpdate, Factor, LowRankUpdate, Scale, Update
from subspace.errors import ShapeError
from subspace.flags import Flag

__all__ = ["PARTS", "is_swallowed", "part", "read", "scale", "without_known"]

PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    ".scalar": "scalar",
    ".dora_scale": "dora",
    ".diff": "diff",
    ".set_weight": "set",
}
# a converter that turned the last dot of the module into an underscore too: lora_unet_..._to_k_lora_down.weight
_SWALLOWED = re.compile(
    r"(?P<module>lora_(?:unet|te\d?|transformer)_[^.]+)_lora(?:_(?P<part>down|up)\.weight|[_.]alpha)"
)
_KNOWN = {
    ".w_norm": "the change of a norm layer's weight (LyCORIS), which is a vector",
    ".b_norm": "the change of a norm layer's bias (LyCORIS), which is a vector",
    ".diff_b": "the change of a bias (LyCORIS), which is not part of delta_W",
    ".diff": "the change of a vector (LyCORIS)",
    ".set_weight": "a vector that ComfyUI sets in full",
    ".reshape_weight": "the shape that ComfyUI pads the base weight to",
}


def part(key: str, parts: Mapping[str, str] = PARTS) -> tuple[str, str] | None:
    """Module and part of a key.

    Examples
    --------
    >>> part("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight")
    ('lora_te_text_model_encoder_layers_0_mlp_fc1', 'up')
    >>> part("lora_unet_mid_block_attentions_0_to_k_lora_up.weight")
    ('lora_unet_mid_block_attentions_0_to_k', 'up')
    """
    swallowed = _SWALLOWED.fullmatch(key)
    if swallowed is not None:
        # attention processors of diffusers, flattened: the layers behind them are to_k, to_out.0
        module = swallowed["module"].replace("_processor_to_", "_to_")
        return f"{module}_0" if module.endswith("_to_out") else module, swallowed["part"] or "alpha"
    dotted = f".{key}"
    for suffix, name in parts.items():
        if dotted.endswith(suffix):
            return dotted[: -len(suffix)].removeprefix("."), name
    return None


def is_swallowed(key: str) -> bool:
    """Whether a name is of a factor whose separator from the module became an underscore."""
    match = _SWALLOWED.fullmatch(key)
    return match is not None and match["part"] is not None


def read(module: str, keys: dict[str, str], source: Source) -> tuple[list[Update], set[str]]:
    """The updates of one module, and the keys that they are read from.

    Raises
    ------
    ShapeError : a factor is missing, or the factors do not multiply
    """
    updates: list[Update] = []
    used: set[str] = set()
    if "diff" in keys and len(source.shape(keys["diff"])) > 1:
        updates.append(_full(module, keys["diff"], source))
        used.add(keys["diff"])
    if "set" in keys and len(source.shape(keys["set"])) > 1:
        updates.append(_set(module, keys["set"], source))
        used.add(keys["set"])
    if downup.complete(module, keys, ("lora_down", "lora_up"), source):
        updates.append(_update(module, keys, source))
        used.update(key for name, key in keys.items() if name not in {"diff", "set"})
    return updates, used


def without_known(unknown: Iterable[str]) -> tuple[tuple[Ignored, ...], tuple[str, ...]]:
    """Of keys that belong to no update, those that LyCORIS is known to write, and the others."""
    known = {key: why for key in unknown for suffix, why in _KNOWN.items() if key.endswith(suffix)}
    ignored = tuple(Ignored(key, why) for key, why in known.items())
    return ignored, tuple(key for key in unknown if key not in known)


def _update(module: str, keys: dict[str, str], source: Source) -> LowRankUpdate:
    A = _tucker(module, keys, source) if "mid" in keys else None
    own = scale(module, keys, source.factor(keys["down"]).shape[0], source)
    if A is None:
        return downup.update(module, keys, own, source)
    B = source.factor(keys["up"])
    pairs.check_rank(A, B, module, source)
    flags = (Flag.TUCKER, Flag.DORA) if "dora" in keys else (Flag.TUCKER,)
    return LowRankUpdate(module, A, B, own, kind="conv", flags=flags)


def _tucker(module: str, keys: dict[str, str], source: Source) -> Factor:
    """``mid . down`` as A (r, in * kernel), with r that of up.

    References
    ----------
    KohakuBlueleaf/LyCORIS 4.1, modules/locon.py: ``lora_mid``.
    """
    mid, down = source.shape(keys["mid"]), source.shape(keys["down"])
    pointwise = all(size == 1 for size in (*down[2:], *source.shape(keys["up"])[2:]))
    if len(mid) < 3 or len(down) < 2 or 0 in (*mid, *down) or mid[1] != down[0] or not pointwise:
        raise ShapeError(
            f"The factors of a Tucker convolution do not fit together: down (r, in, 1, 1) is {list(down)} and "
            f"mid (r, r, kh, kw) is {list(mid)}, in {source.place(module)}"
        )
    A = structured.tucker(source.factor(keys["mid"]), source.factor(keys["down"]), mid[1])
    return replace(A, tensor_shape=(mid[0], down[1], *mid[2:]))


def _full(module: str, key: str, source: Source) -> DenseUpdate:
    """A layer whose change is stored as a matrix: LyCORIS, modules/full.py, ``weight_list``."""
    kind = "conv" if len(source.shape(key)) > 2 else "linear"
    return DenseUpdate(module, source.factor(key), kind=kind)


def _set(module: str, key: str, source: Source) -> DenseUpdate:
    """A layer whose new weight is stored, so that ``delta_W`` is its difference from the base.

    References
    ----------
    comfyanonymous/ComfyUI, comfy/lora.py: ``load_lora``, "set_weight".
    """
    S = source.factor(key)
    kind = "conv" if len(source.shape(key)) > 2 else "linear"
    weight = multiplicative.site(module, source, size=S.shape[0], side="out", kind=kind)
    if weight is None:
        return multiplicative.unbound(
            module, S.load, source, shape=S.shape, dtype=S.dtype, flag=Flag.FINE_TUNE, kind=kind
        )
    if weight.shape != S.shape:
        raise ShapeError(
            f"The new weight does not have the shape of the base weight: {list(S.shape)} and {list(weight.shape)}, in "
            f"{source.place(module)}; give the base model that the adapter was trained on"
        )
    return multiplicative.bound(
        module,
        weight,
        lambda W: S.load().astype(np.float64) - W,
        source,
        dtype=S.dtype,
        flag=Flag.FINE_TUNE,
        kind=kind,
        rounded=True,
    )


def scale(module: str, keys: Mapping[str, str], r: int, source: Source) -> Scale:
    """``alpha / r``, times the ``scalar`` of old LyCORIS; an alpha that is missing or 0 means r.

    References
    ----------
    kohya-ss/sd-scripts, networks/lora.py: ``LoRAModule.__init__`` ("if alpha == 0 or None, alpha is rank") and
    ``create_network_from_weights`` ("support old LoRA without alpha"). LyCORIS, modules/locon.py, does the same, and
    ``make_weight`` multiplies by ``scalar``, which newer versions fold into up when they save.
    """
    if module in source.scales:
        return Scale(source.scales[module], "module")
    scalar = source.tensors.read_scalar(keys["scalar"]) if "scalar" in keys else 1.0
    if "alpha" not in keys:
        return Scale(scalar, "no alpha: r in sd-scripts")
    alpha = source.tensors.read_scalar(keys["alpha"])
    if alpha == 0:
        return Scale(scalar, "alpha 0: r in sd-scripts", alpha)
    return Scale(scalar * alpha / r, "tensor", alpha)
