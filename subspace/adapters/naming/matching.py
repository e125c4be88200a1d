"""Pairs of modules of two adapters: the same dotted path, whatever its prefix, or a translation of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.naming.modules import Modules

if TYPE_CHECKING:
    from subspace.adapters.naming.translation import Hit

__all__ = ["Matched", "match_modules", "match_names"]


class Matched(NamedTuple):
    """Modules of two adapters, in pairs.

    Attributes
    ----------
    pairs : list of tuple
        (name in the first, name in the second), in the order of the first.
    only_first, only_second : list of str
        Names that are in no pair.
    translated : mapping of str to Hit
        Name in the first -> how its pair was found, where the two names are those of different libraries.
    """

    pairs: list[tuple[str, str]]
    only_first: list[str]
    only_second: list[str]
    translated: Mapping[str, Hit] = MappingProxyType({})


def match_modules(first: Sequence[str], second: Sequence[str]) -> Matched:
    """Pair the modules of two adapters by their names.

    Equal names come first, then paths of which one ends with the other ("model.h.0.q" and "h.0.q"), then names of
    different libraries for one module ("blk.0.attn_q" and "layers.0.self_attn.q_proj"; "lora_unet_mid_block_to_q" and
    "mid_block.to_q") or of different versions of one ("language_model.model.layers.0" and
    "model.language_model.layers.0"). A name that could be several modules is in no pair. Two adapters of one module
    each are a pair, whatever the names.

    Parameters
    ----------
    first, second : sequence of str
        Names of modules; an `Adapter` is one of its own.

    Returns
    -------
    Matched
        The pairs, the names that are in none, and which pairs have translated names.

    Examples
    --------
    >>> match_modules(["model.h.0.q", "model.h.1.q"], ["h.0.q", "h.2.q"])
    Matched(pairs=[('model.h.0.q', 'h.0.q')], only_first=['model.h.1.q'], only_second=['h.2.q'], translated={})
    >>> match_modules(["h.0.q", "h.1.q"], ["lora_te_h_1_q", "lora_te_h_2_q"]).pairs
    [('h.1.q', 'lora_te_h_1_q')]
    """
    if len(first) == len(second) == 1:
        return Matched([(first[0], second[0])], [], [])
    return match_names(first, second)


def match_names(first: Sequence[str], second: Sequence[str]) -> Matched:
    """Pair modules by their names alone, as `match_modules` does with more than one.

    Examples
    --------
    >>> match_names(["q"], ["v"]).pairs
    []
    """
    there = set(second)
    pairs = {name: name for name in first if name in there}
    taken = set(pairs.values())
    rest_first = [name for name in first if name not in pairs]
    rest_second = [name for name in second if name not in taken]
    pairs |= _by_suffix(rest_first, rest_second)
    translated = _by_translation(pairs, first, second)
    taken = set(pairs.values())
    return Matched(
        [(name, pairs[name]) for name in first if name in pairs],
        [name for name in first if name not in pairs],
        [name for name in second if name not in taken],
        translated,
    )


def _by_translation(pairs: dict[str, str], first: Sequence[str], second: Sequence[str]) -> dict[str, Hit]:
    """Add pairs of names of different libraries for one module to `pairs`; how each was found."""
    taken = set(pairs.values())
    rest_first = [name for name in first if name not in pairs]
    rest_second = [name for name in second if name not in taken]
    if not (rest_first and rest_second):
        return {}
    from subspace.adapters.naming.translation import by_translation

    found = by_translation(rest_first, rest_second)
    pairs |= {name: other for name, (other, _) in found.items()}
    return {name: hit for name, (_, hit) in found.items()}


def _by_suffix(first: Sequence[str], second: Sequence[str]) -> dict[str, str]:
    """Pairs of which one dotted path ends with the other, unambiguous in both directions."""
    modules = Modules(second)
    claims: dict[str, list[str]] = defaultdict(list)
    for name in first:
        hits = modules.same(name, most=2)
        if len(hits) == 1:
            claims[hits[0]].append(name)
    return {names[0]: other for other, names in claims.items() if len(names) == 1}
