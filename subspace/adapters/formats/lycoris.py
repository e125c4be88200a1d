"""LyCORIS: LoHa, LoKr, OFT, BOFT, GLoRA and IA3 modules, and pairs with kohya's keys in the same file.

A preset of LyCORIS gives each layer its own algorithm, so this format is that of every file with one such module, and
reads all modules of it; sd-scripts writes the same OFT. ``bypass`` modes change how a layer is computed, not what it
computes. Names stay as they are, with dots or with underscores for dots.
"""

from __future__ import annotations

from collections.abc import Mapping

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _glora as glora
from subspace.adapters.formats import _kohya_keys as kohyakeys
from subspace.adapters.formats import _loha_lokr as composed
from subspace.adapters.formats import _lycoris_ia3 as ia3
from subspace.adapters.formats import _output_rotation as rotation
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _structured as structured
from subspace.adapters.update import Scale, Update
from subspace.flags import Flag

__all__ = ["FORMAT"]

# a plain weight comes last: the names of factors end with it too
_PARTS = {**composed.PARTS, **rotation.PARTS, **glora.PARTS, **kohyakeys.PARTS, **ia3.PARTS}
_WITH_BASE = {Flag.OFT, Flag.BOFT, Flag.IA3, Flag.GLORA}
_SETTINGS = {"alpha", "scalar", "dora"}
_OWN = {*composed.PARTS.values(), *_SETTINGS}
_OF_BASE = {*rotation.PARTS.values(), *glora.PARTS.values(), *ia3.PARTS.values(), "alpha", "scalar"}


def _read(source: Source) -> Reading:
    updates: list[Update] = []
    used: set[str] = set()
    for module, keys in downup.sorted_by_module(source, lambda key: kohyakeys.part(key, _PARTS)).items():
        if composed.is_loha(keys) or composed.is_lokr(keys):
            updates.append(_composed(module, keys, source))
            used.update(key for name, key in keys.items() if name in _OWN)
        elif (of_base := _of_base(module, keys, source)) is not None:
            updates.append(of_base)
            used.update(key for name, key in keys.items() if name in _OF_BASE)
        else:
            of_module, read = kohyakeys.read(module, keys, source)
            updates += of_module
            used |= read
    formed = [update for update in updates if not _WITH_BASE & set(update.flags)]
    ignored, unknown = pairs.other_tensors(source, used)
    known, unknown = kohyakeys.without_known(unknown)
    return Reading(tuple(updates), ignored + known, unknown, structured.dense_note(formed))


def _of_base(module: str, keys: Mapping[str, str], source: Source) -> Update | None:
    """The update of a module that changes the base weight itself; None where it is of another kind."""
    if rotation.is_rotation(keys):
        return rotation.update(module, keys, source)
    if glora.is_glora(keys):
        return glora.update(
            module, keys, kohyakeys.scale(module, keys, glora.rank(keys, source), source), source
        )
    return ia3.update(module, keys, source) if ia3.is_ia3(keys) else None


def _composed(module: str, keys: Mapping[str, str], source: Source) -> Update:
    built = composed.loha if composed.is_loha(keys) else composed.lokr
    return structured.update(
        module,
        built(module, keys, source),
        composed.by_own_rank(_scale(module, keys, source), keys, source),
        kind=composed.kind(keys, source),
        flags=(Flag.DORA,) if "dora" in keys else (),
    )


def _scale(module: str, keys: Mapping[str, str], source: Source) -> Scale:
    """``alpha / r``; 1 for a LoKr of two full blocks, whatever its alpha.

    LyCORIS trains full blocks with rs_lora at a scale of sqrt(r), and loads them with 1: the file does not say r.

    References
    ----------
    KohakuBlueleaf/LyCORIS 4.1, modules/lokr.py: "if self.use_w2 and self.use_w1: alpha = lora_dim" (use scale = 1) and
    ``make_module_from_state_dict``, where lora_dim is 1 for them.
    """
    r = composed.own_rank(keys, source)
    if r is not None:
        return kohyakeys.scale(module, keys, r, source)
    if module in source.scales:
        return Scale(source.scales[module], "module")
    scalar = source.tensors.read_scalar(keys["scalar"]) if "scalar" in keys else 1.0
    return Scale(scalar, "full blocks: 1 in LyCORIS")


FORMAT = Format(
    name="lycoris",
    about="LyCORIS LoHa, LoKr, GLoRA, OFT, BOFT and IA3, also with pairs in kohya's keys: scale alpha / r per module, "
    "1 for a LoKr of full blocks and what rotates or rescales the base (lycoris/modules/, sd-scripts networks/oft.py)",
    claims=dialects.is_lycoris,
    read=_read,
)
