"""Which module of one model is which of another: the same dotted path, whatever stands before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.naming.modules import Modules

if TYPE_CHECKING:
    from subspace.adapters.naming.translation import Hit

__all__ = ["Matched", "match_modules"]


class Matched(NamedTuple):
    """Pairs of names, names left over on either side, and how pairs were found that are spelled differently."""

    pairs: list[tuple[str, str]]
    only_first: list[str]
    only_second: list[str]
    spelled: Mapping[str, Hit] = MappingProxyType({})


def match_modules(first: Sequence[str], second: Sequence[str]) -> Matched:
    """Pair the modules of two adapters: equal names, then paths of which one ends with the other, then other spellings.

    A path that could be several is left over rather than guessed. Two adapters of one module each are a pair
    whatever they are called. Translations are those of `subspace.adapters.naming.writers`, and names whose dots became
    underscores.

    Examples
    --------
    >>> match_modules(["model.h.0.q", "model.h.1.q"], ["h.0.q", "h.2.q"])
    Matched(pairs=[('model.h.0.q', 'h.0.q')], only_first=['model.h.1.q'], only_second=['h.2.q'], spelled={})
    >>> match_modules(["h.0.q", "h.1.q"], ["lora_te_h_1_q", "lora_te_h_2_q"]).pairs
    [('h.1.q', 'lora_te_h_1_q')]
    """
    if len(first) == len(second) == 1:
        return Matched([(first[0], second[0])], [], [])
    there = set(second)
    pairs = {name: name for name in first if name in there}
    taken = set(pairs.values())
    rest_first = [name for name in first if name not in pairs]
    rest_second = [name for name in second if name not in taken]
    pairs |= _by_suffix(rest_first, rest_second)
    spelled = _by_translation(pairs, first, second)
    taken = set(pairs.values())
    return Matched(
        [(name, pairs[name]) for name in first if name in pairs],
        [name for name in first if name not in pairs],
        [name for name in second if name not in taken],
        spelled,
    )


def _by_translation(pairs: dict[str, str], first: Sequence[str], second: Sequence[str]) -> dict[str, Hit]:
    """Add the pairs of what is left over whose names are two spellings of one; how each was found."""
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
    """Unambiguous pairs, in both directions, of which one dotted path ends with the other."""
    modules = Modules(second)
    claims: dict[str, list[str]] = defaultdict(list)
    for name in first:
        hits = modules.same(name, most=2)
        if len(hits) == 1:
            claims[hits[0]].append(name)
    return {names[0]: other for other, names in claims.items() if len(names) == 1}
