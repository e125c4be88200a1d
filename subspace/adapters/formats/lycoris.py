"""LyCORIS: LoHa (``hada_w1_a`` ...) and LoKr (``lokr_w1`` ...) modules, and pairs with kohya's keys in the same file.

A preset of LyCORIS gives each layer its own algorithm, so this format is that of every file with a LoHa or LoKr module,
and reads all modules of it. ``bypass`` modes change how a layer is computed, not what it computes. Names stay as they
are, with dots or with underscores for dots.
"""

from __future__ import annotations

from collections.abc import Mapping

from subspace.adapters.format import Format, Reading, Source
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _kohya_keys as kohyakeys
from subspace.adapters.formats import _loha_lokr as composed
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _structured as structured
from subspace.adapters.update import Scale, Update
from subspace.flags import Flag

__all__ = ["FORMAT"]

_PARTS = {**composed.PARTS, **kohyakeys.PARTS}
_OWN = {*composed.PARTS.values(), "alpha", "scalar", "dora"}


def _read(source: Source) -> Reading:
    updates: list[Update] = []
    used: set[str] = set()
    for module, keys in downup.sorted_by_module(source, lambda key: kohyakeys.part(key, _PARTS)).items():
        if composed.is_loha(keys) or composed.is_lokr(keys):
            updates.append(_composed(module, keys, source))
            used.update(key for name, key in keys.items() if name in _OWN)
        else:
            of_module, read = kohyakeys.read(module, keys, source)
            updates += of_module
            used |= read
    ignored, unknown = pairs.other_tensors(source, used)
    known, unknown = kohyakeys.without_known(unknown)
    return Reading(tuple(updates), ignored + known, unknown, structured.dense_note(updates))


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
    about="LyCORIS LoHa and LoKr, also with pairs in kohya's keys: scale alpha / r per module, 1 for a LoKr of "
    "full blocks (lycoris/modules/loha.py, lokr.py)",
    claims=dialects.is_lycoris,
    read=_read,
)
