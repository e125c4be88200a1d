"""kohya-ss sd-scripts: ``<name>.lora_down.weight``, ``<name>.lora_up.weight`` and a scalar ``<name>.alpha``.

The name is the module's path with its dots turned into underscores (``lora_unet_mid_block_attentions_0_proj_in``).
The path cannot be had back without the model's list of modules, so the name stays as it is. LyCORIS (LoCon, DoRA) and
OneTrainer write the same keys; some writers keep the dots. A Tucker convolution has a core ``lora_mid`` between down
and up, and LyCORIS keeps some layers as a whole change (``<name>.diff``).
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _claims as dialects
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _kohya_keys as locon
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import Update

__all__ = ["FORMAT"]

_PAIR = (".lora_down.weight", ".lora_up.weight")
# a file of whole changes only is a dense one, and where other factors are beside them, they decide
_DENSE = (".diff", ".delta", ".delta_W")
_OTHERS = (".lokr_", ".hada_", ".oft_", ".glora_")


def _claims(source: Source) -> bool:
    keys = source.tensors.layout
    if dialects.is_lycoris(source):
        return False
    if any(f".{key}".endswith(_PAIR) for key in keys):
        return True
    if any(other in f".{key}" for key in keys for other in _OTHERS):
        return False
    return any(key.endswith(".diff") for key in keys) and not all(key.endswith(_DENSE) for key in keys)


def _read(source: Source) -> Reading:
    updates: list[Update] = []
    used: set[str] = set()
    for module, keys in downup.sorted_by_module(source, locon.part).items():
        made, their = locon.read(module, keys, source)
        updates += made
        used |= their
    ignored, unknown = pairs.other_tensors(source, used)
    beside, unknown = locon.sort_beside(unknown)
    return Reading(tuple(updates), ignored + beside, unknown)


FORMAT = Format(
    name="kohya",
    about="kohya sd-scripts, LyCORIS LoCon, OneTrainer: scale alpha / r per module, 1 without alpha "
    "(sd-scripts networks/lora.py)",
    claims=_claims,
    read=_read,
)
