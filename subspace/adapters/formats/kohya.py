"""kohya-ss sd-scripts: ``<name>.lora_down.weight``, ``<name>.lora_up.weight`` and a scalar ``<name>.alpha``.

The name is the module's path with its dots turned into underscores (``lora_unet_mid_block_attentions_0_proj_in``).
The path cannot be had back without the model's list of modules, so the name stays as it is. LyCORIS (LoCon, DoRA) and
OneTrainer write the same keys; some writers keep the dots.
"""

from __future__ import annotations

from subspace.adapters import downup, pairs
from subspace.adapters.format import Format, Ignored, Reading, Source, refuse
from subspace.adapters.update import LowRankUpdate, Scale

__all__ = ["FORMAT"]

_PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    ".dora_scale": "dora",
}
_BESIDE = {
    ".w_norm": "a change of a norm layer's weight (LyCORIS), not a low-rank update",
    ".b_norm": "a change of a norm layer's bias (LyCORIS), not a low-rank update",
    ".diff_b": "a change of a bias (LyCORIS), not part of delta_W",
}


def _claims(source: Source) -> bool:
    return any(f".{key}".endswith((".lora_down.weight", ".lora_up.weight")) for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for module, keys in downup.sorted_by_module(source, _part).items():
        if "mid" in keys:
            raise refuse(source, "a LyCORIS LoCon with Tucker cores (lora_mid), which is not read")
        if downup.complete(module, keys, ("lora_down", "lora_up"), source):
            updates.append(downup.update(module, keys, _scale(module, keys, source), source))
            used.update(keys.values())
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


def _scale(module: str, keys: dict[str, str], source: Source) -> Scale:
    """``alpha / r``; an alpha that is missing or 0 stands for r.

    References
    ----------
    kohya-ss/sd-scripts, networks/lora.py: ``LoRAModule.__init__`` ("if alpha == 0 or None, alpha is rank") and
    ``create_network_from_weights`` ("support old LoRA without alpha"). LyCORIS, modules/locon.py, does the same.
    """
    if module in source.scales:
        return Scale(source.scales[module], "module")
    if "alpha" not in keys:
        return Scale(1.0, "no alpha: r in sd-scripts")
    alpha = source.tensors.read_scalar(keys["alpha"])
    if alpha == 0:
        return Scale(1.0, "alpha 0: r in sd-scripts", alpha)
    r = source.shape(keys["down"])[0]
    return Scale(alpha / r, "tensor", alpha)


FORMAT = Format(
    name="kohya",
    about="kohya sd-scripts, LyCORIS LoCon, OneTrainer: scale alpha / r per module, 1 without alpha "
    "(sd-scripts networks/lora.py)",
    claims=_claims,
    read=_read,
)
