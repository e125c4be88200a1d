"""kohya-ss sd-scripts: ``<name>.lora_down.weight``, ``<name>.lora_up.weight`` and a scalar ``<name>.alpha``.

The name is the path of the module with underscores for dots (``lora_unet_mid_block_attentions_0_proj_in``). The path
cannot be recovered without the list of modules of the model, so the name stays as it is. LyCORIS (LoCon, DoRA) and
OneTrainer write the same keys; some trainers keep the dots. A Tucker convolution has a core ``lora_mid`` between down
and up, and LyCORIS stores some layers as a full change (``<name>.diff``).
"""

from __future__ import annotations

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _kohya_keys as kohyakeys
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.update import Update

__all__ = ["FORMAT"]

_PAIR = (".lora_down.weight", ".lora_up.weight")
# a file of full changes alone is of the format dense; with other factors, those decide
_DENSE = (".diff", ".delta", ".delta_W")
_OTHERS = (".lokr_", ".hada_", ".oft_", ".glora_")


def _claims(source: Source) -> bool:
    keys = source.tensors.layout
    if dialects.is_lycoris(source):
        return False
    if any(f".{key}".endswith(_PAIR) or kohyakeys.is_swallowed(key) for key in keys):
        return True
    if any(other in f".{key}" for key in keys for other in _OTHERS):
        return False
    return any(key.endswith(".diff") for key in keys) and not all(key.endswith(_DENSE) for key in keys)


def _read(source: Source) -> Reading:
    updates: list[Update] = []
    used: set[str] = set()
    for module, keys in downup.sorted_by_module(source, kohyakeys.part).items():
        of_module, read = kohyakeys.read(module, keys, source)
        updates += of_module
        used |= read
    ignored, unknown = pairs.other_tensors(source, used)
    known, unknown = kohyakeys.without_known(unknown)
    return Reading(tuple(updates), ignored + known, unknown)


FORMAT = Format(
    name="kohya",
    about="kohya sd-scripts, LyCORIS LoCon, OneTrainer: scale alpha / r per module, 1 without alpha "
    "(sd-scripts networks/lora.py)",
    claims=_claims,
    read=_read,
)
