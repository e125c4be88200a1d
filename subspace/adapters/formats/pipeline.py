"""Image pipelines with PEFT's keys, without PEFT's configuration or with one per component in the metadata.

``transformer.<path>.lora_A.weight``, ``diffusion_model.<path>...``, ``unet.<path>...`` or the model's own paths
(``double_blocks.0.img_attn.proj.lora_A.weight`` of Black Forest Labs, also with biases and weights of norm layers).
diffusers' ``convert_state_dict_to_diffusers`` gives some layers of a file its old keys, ``to_q.lora.down.weight``.
"""

from __future__ import annotations

import re

from subspace.adapters.format import Format, Ignored, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _diffusers_keys as diffuserskeys
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats._components import Components
from subspace.adapters.update import LowRankUpdate, Scale

__all__ = ["FORMAT"]

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight", re.DOTALL)
_OTHER_PARTS = (
    (re.compile(r"(?P<module>.+)\.(?:lora_magnitude_vector(?:\.weight)?|dora_scale)", re.DOTALL), "dora"),
    (re.compile(r"(?P<module>.+)\.alpha", re.DOTALL), "alpha"),
)
_NORM = re.compile(r".*norm\w*\.scale", re.DOTALL)


def _read(source: Source) -> Reading:
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    components = Components(source)
    for module, keys in downup.sorted_by_module(source, _part).items():
        if downup.complete(module, keys, ("lora_A", "lora_B"), source):
            updates.append(downup.update(module, keys, _scale(module, keys, components), source))
            used.update(keys.values())
    ignored, unknown = pairs.other_tensors(source, used)
    norms = [key for key in unknown if _NORM.fullmatch(key)]
    ignored += tuple(Ignored(key, "the weight of a norm layer, saved in full") for key in norms)
    unknown = tuple(key for key in unknown if key not in norms)
    return Reading(tuple(updates), ignored, unknown, tuple(components.notes(updates)))


def _part(key: str) -> tuple[str, str] | None:
    """Module and part of a key.

    Examples
    --------
    >>> _part("transformer.single_transformer_blocks.12.proj_out.lora_A.weight")
    ('transformer.single_transformer_blocks.12.proj_out', 'down')
    """
    match = _FACTOR.fullmatch(key)
    if match is not None:
        return match["module"], "down" if match["part"] == "A" else "up"
    for pattern, part in _OTHER_PARTS:
        match = pattern.fullmatch(key)
        if match is not None:
            return match["module"], part
    return diffuserskeys.part(key)


def _scale(module: str, keys: dict[str, str], components: Components) -> Scale:
    """By the component's configuration, else ``alpha / r``, else 1: what loads these files takes r for no alpha.

    References
    ----------
    huggingface/diffusers 0.42.1, utils/peft_utils.py: ``get_peft_kwargs``, ``r = lora_alpha``; comfyanonymous/ComfyUI,
    comfy/weight_adapter/lora.py: alpha 1.0 without a key; black-forest-labs/flux, src/flux/modules/lora.py:
    ``LinearLora.scale`` is 1.0.
    """
    return components.scale(module, keys, otherwise="no alpha: 1 in diffusers, ComfyUI and Flux")


FORMAT = Format(
    name="pipeline",
    about="diffusers, ai-toolkit and Flux control LoRA, with PEFT's keys and no configuration: scale alpha / r, 1 "
    "without alpha (diffusers utils/peft_utils.py, get_peft_kwargs)",
    claims=dialects.is_pipeline,
    read=_read,
)
