"""cloneofsimo/lora: ``unet:12:up`` in safetensors, or a list [up, down, up, down, ...] without any names.

A layer is known by its place alone, as the n-th adapted layer of ``unet`` or ``text_encoder``. A list has the keys "0",
"1", ... and is recognised by its shapes, up (d_out, r) before down (r, d_in).
"""

from __future__ import annotations

import re

from subspace.adapters.format import Format, Ignored, Reading, Source
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.naming.sorting import in_order
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.text import counted, listed

__all__ = ["FORMAT"]

_NAMED = re.compile(r"(?P<model>[^:]+):(?P<place>[0-9]{1,9}):(?P<part>up|down)", re.DOTALL)
_TOKEN = re.compile(r"<[^>]*>", re.DOTALL)
_SCALE = Scale(1.0, "no multiplier in cloneofsimo/lora")


def _claims(source: Source) -> bool:
    keys = source.tensors.layout
    # a single matrix of that name is a file of the format dense
    return (len(keys) > 1 and any(_NAMED.fullmatch(key) for key in keys)) or _is_list(source)


def _is_list(source: Source) -> bool:
    """Whether the keys are 0, 1, ... and the shapes those of up and down in turn, with r at most both sides."""
    keys = source.tensors.layout
    if not keys or len(keys) % 2 or set(keys) != {str(n) for n in range(len(keys))}:
        return False
    for n in range(0, len(keys), 2):
        up, down = source.shape(str(n)), source.shape(str(n + 1))
        if len(up) < 2 or len(up) != len(down) or up[1] != down[0] or up[1] > min(up[0], down[1]):
            return False
    return True


def _read(source: Source) -> Reading:
    part_of = _listed if _is_list(source) else _named
    modules = downup.sorted_by_module(source, part_of)
    updates: list[LowRankUpdate] = []
    used: set[str] = set()
    for module in in_order(modules):
        keys = modules[module]
        if downup.complete(module, keys, ("down", "up"), source):
            updates.append(downup.update(module, keys, _scale(module, source), source))
            used.update(keys.values())
    ignored, unknown = pairs.other_tensors(source, used)
    tokens = [key for key in unknown if _TOKEN.fullmatch(key)]
    ignored += tuple(Ignored(key, "a textual inversion embedding") for key in tokens)
    notes = ["Modules are named by their place, since the file does not hold the names of the layers"]
    return Reading(
        tuple(updates),
        ignored,
        tuple(key for key in unknown if key not in tokens),
        (*notes, *_ranks(updates, source)),
    )


def _named(key: str) -> tuple[str, str] | None:
    """Module and part of a key of a safetensors file.

    Examples
    --------
    >>> _named("text_encoder:3:down")
    ('text_encoder:3', 'down')
    """
    match = _NAMED.fullmatch(key)
    return (f"{match['model']}:{int(match['place'])}", match["part"]) if match else None


def _listed(key: str) -> tuple[str, str] | None:
    """Module and part of an element of the list.

    Examples
    --------
    >>> _listed("6"), _listed("7")
    (('3', 'up'), ('3', 'down'))
    """
    place, second = divmod(int(key), 2)
    return str(place), "down" if second else "up"


def _scale(module: str, source: Source) -> Scale:
    """1, as the library applies it when it loads the file.

    References
    ----------
    cloneofsimo/lora, lora_diffusion/lora.py (head of 2023): ``LoraInjectedLinear.scale`` is 1.0 and
    ``weight_apply_lora`` adds ``alpha * up @ down`` with alpha 1.0; ``tune_lora_scale`` is a setting of the user.
    """
    return Scale(source.scales[module], "module") if module in source.scales else _SCALE


def _ranks(updates: list[LowRankUpdate], source: Source) -> list[str]:
    """The note that the ranks of the metadata are not those of the factors, which are used."""
    ranks = {update.module: source.tensors.metadata.get(f"{update.module}:rank") for update in updates}
    wrong = [update.module for update in updates if ranks[update.module] not in {None, str(update.r)}]
    if not wrong:
        return []
    return [
        f"The metadata give another rank than the factors have for {counted(len(wrong), 'module')} ({listed(wrong)})"
    ]


FORMAT = Format(
    name="cloneofsimo",
    about="cloneofsimo/lora, unet:0:up or a list of up and down: scale 1, as the library applies "
    "(lora_diffusion/lora.py, LoraInjectedLinear)",
    claims=_claims,
    read=_read,
)
