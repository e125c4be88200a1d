"""diffusers before it had PEFT's keys: ``<path>.lora.down.weight``, and attention processors before that.

A module gets the same name from each of three layouts, so that files match one another and those with PEFT's keys:

- ``unet.<path>.to_out.0.lora.down.weight`` -> ``unet.<path>.to_out.0``
- ``<path>.processor.to_out_lora.down.weight`` -> ``<path>.to_out.0``
- ``text_encoder.<path>.to_q_lora.down.weight`` and ``<path>.q_proj.lora_linear_layer.down.weight`` -> ``<path>.q_proj``

A prefix ``unet.`` or ``text_encoder.`` stays: it distinguishes two encoders, and modules match by the end of the path.
The scale is that of the component's configuration in the metadata, else alpha / r where there is an alpha, else 1.
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _diffusers_keys as diffuserskeys
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats._components import Components
from subspace.adapters.update import LowRankUpdate

__all__ = ["FORMAT"]


def _claims(source: Source) -> bool:
    if dialects.is_xlabs(source) or dialects.is_pipeline(source):
        return False
    return any(map(diffuserskeys.is_factor, source.tensors.layout))


def _read(source: Source) -> Reading:
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    components = Components(source)
    for module, keys in downup.sorted_by_module(source, diffuserskeys.part).items():
        if downup.complete(module, keys, ("lora.down", "lora.up"), source):
            # models/lora.py of diffusers: LoRALinearLayer.forward multiplies by network_alpha / rank if there is one
            scale = components.scale(module, keys, otherwise="no alpha: 1 in diffusers")
            updates.append(downup.update(module, keys, scale, source))
            used.update(keys.values())
    ignored, unknown = pairs.other_tensors(source, used)
    return Reading(tuple(updates), ignored, unknown, tuple(components.notes(updates)))


FORMAT = Format(
    name="diffusers",
    about="diffusers, lora.down and lora.up or attention processors: scale alpha / r, 1 without alpha "
    "(diffusers models/lora.py)",
    claims=_claims,
    read=_read,
)
