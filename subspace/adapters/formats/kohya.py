"""kohya-ss sd-scripts: ``<name>.lora_down.weight``, ``<name>.lora_up.weight`` and a scalar ``<name>.alpha``.

The name is the module's path with its dots turned into underscores (``lora_unet_mid_block_attentions_0_proj_in``).
The path cannot be had back without the model's list of modules, so the name stays as it is. LyCORIS (LoCon, DoRA) and
OneTrainer write the same keys; some writers keep the dots. A Tucker convolution has a core ``lora_mid`` between down
and up, and LyCORIS keeps some layers as a whole change (``<name>.diff``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from subspace.adapters import downup, pairs
from subspace.adapters.format import Format, Ignored, Reading, Source
from subspace.adapters.update import DenseUpdate, Factor, LowRankUpdate, Scale, Update
from subspace.errors import ShapeError, shown

__all__ = ["FORMAT"]

_PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    ".scalar": "scalar",
    ".dora_scale": "dora",
    ".diff": "diff",
}
_PAIR = (".lora_down.weight", ".lora_up.weight")
# a file of whole changes only is a dense one, and where other factors are beside them, they decide
_DENSE = (".diff", ".delta", ".delta_W")
_OTHERS = (".lokr_", ".hada_", ".oft_", ".glora_")
_BESIDE = {
    ".w_norm": "a change of a norm layer's weight (LyCORIS), not a low-rank update",
    ".b_norm": "a change of a norm layer's bias (LyCORIS), not a low-rank update",
    ".diff_b": "a change of a bias (LyCORIS), not part of delta_W",
    ".diff": "a change of a vector (LyCORIS), not of a matrix",
}


def _claims(source: Source) -> bool:
    keys = source.tensors.layout
    if any(f".{key}".endswith(_PAIR) for key in keys):
        return True
    if any(other in f".{key}" for key in keys for other in _OTHERS):
        return False
    return any(key.endswith(".diff") for key in keys) and not all(key.endswith(_DENSE) for key in keys)


def _read(source: Source) -> Reading:
    updates: list[Update] = []
    used: set[str] = set()
    for module, keys in downup.sorted_by_module(source, _part).items():
        if "diff" in keys and len(source.shape(keys["diff"])) > 1:
            updates.append(_whole(module, keys["diff"], source))
            used.add(keys["diff"])
        if downup.complete(module, keys, ("lora_down", "lora_up"), source):
            updates.append(_update(module, keys, source))
            used.update(key for part, key in keys.items() if part != "diff")
    ignored, unknown = pairs.other_tensors(source, used)
    beside = {key: why for key in unknown for suffix, why in _BESIDE.items() if key.endswith(suffix)}
    ignored += tuple(Ignored(key, why) for key, why in beside.items())
    return Reading(tuple(updates), ignored, tuple(key for key in unknown if key not in beside))


def _part(key: str) -> tuple[str, str] | None:
    """Module and part of a key.

    Examples
    --------
    >>> _part("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight")
    ('lora_te_text_model_encoder_layers_0_mlp_fc1', 'up')
    """
    dotted = f".{key}"
    for suffix, part in _PARTS.items():
        if dotted.endswith(suffix):
            return dotted[: -len(suffix)].removeprefix("."), part
    return None


def _update(module: str, keys: dict[str, str], source: Source) -> LowRankUpdate:
    if "mid" not in keys:
        return downup.update(module, keys, _scale(module, keys, source), source)
    B, A = source.factor(keys["up"]), _tucker(module, keys, source)
    pairs.check_rank(A, B, module, source)
    flags = ("tucker", "dora") if "dora" in keys else ("tucker",)
    return LowRankUpdate(module, A, B, _scale(module, keys, source), kind="conv", flags=flags)


def _tucker(module: str, keys: dict[str, str], source: Source) -> Factor:
    """``mid . down`` as A (r, in * kernel): the rank stays that of up.

    References
    ----------
    KohakuBlueleaf/LyCORIS 4.1, lycoris/functional/general.py: ``rebuild_tucker``; modules/locon.py: ``lora_mid``.
    """
    mid, down = source.shape(keys["mid"]), source.shape(keys["down"])
    pointwise = all(size == 1 for size in (*down[2:], *source.shape(keys["up"])[2:]))
    if len(mid) < 3 or len(down) < 2 or 0 in (*mid, *down) or mid[1] != down[0] or not pointwise:
        raise ShapeError(
            f"down (r, in, 1, 1) and mid (r, r, kh, kw) must multiply: got {list(down)} and {list(mid)}, "
            f"in module {shown(module)} of {source.path}"
        )
    core, first = source.factor(keys["mid"]), source.factor(keys["down"])

    def load() -> NDArray[Any]:
        # (r, r, kernel) with (r, in) over the second rank
        product: NDArray[Any] = np.einsum("mnk,nj->mjk", core.load().reshape(*mid[:2], -1), first.load())
        return product.reshape(mid[0], -1)

    return Factor((mid[0], down[1] * (core.shape[1] // mid[1])), first.dtype, load)


def _whole(module: str, key: str, source: Source) -> DenseUpdate:
    """A layer whose change is kept whole: LyCORIS, modules/full.py, ``weight_list``."""
    kind = "conv" if len(source.shape(key)) > 2 else "linear"
    return DenseUpdate(module, source.factor(key), kind=kind)


def _scale(module: str, keys: dict[str, str], source: Source) -> Scale:
    """``alpha / r``, times the ``scalar`` of old LyCORIS; an alpha that is missing or 0 stands for r.

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
    r = source.shape(keys["down"])[0]
    return Scale(scalar * alpha / r, "tensor", alpha)


FORMAT = Format(
    name="kohya",
    about="kohya sd-scripts, LyCORIS LoCon, OneTrainer: scale alpha / r per module, 1 without alpha "
    "(sd-scripts networks/lora.py)",
    claims=_claims,
    read=_read,
)
