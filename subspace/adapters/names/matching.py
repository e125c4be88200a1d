"""Which module of one model is which of another: the same dotted path, whatever stands before it."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from subspace.adapters.names.spelling import Hit

__all__ = ["Matched", "Modules", "match_modules"]

_DEEPEST = 64


class Matched(NamedTuple):
    """Pairs of names, names left over on either side, and how pairs were found that are spelled differently."""

    pairs: list[tuple[str, str]]
    only_first: list[str]
    only_second: list[str]
    spelled: Mapping[str, Hit] = MappingProxyType({})


class Modules:
    """Names that are asked many times which of them is a module; a question costs the logarithm of their number.

    Examples
    --------
    >>> Modules(["h.0.attn", "h.1.attn"]).same("transformer.h.0.attn")
    ['h.0.attn']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)
        # a path ends with ".q" exactly where its mirror image begins with "q."
        self._mirrored = sorted(name[::-1] for name in self._names)

    def same(self, name: str, *, most: int = 8) -> list[str]:
        """Up to `most` names of the module: itself alone, else paths of which one ends with the other."""
        if name in self._names:
            return [name]
        if not name:
            return []
        longer = islice(self._longer(name), most)
        shorter = (suffix for suffix in _suffixes(name) if suffix in self._names)
        return list(islice(dict.fromkeys([*longer, *shorter]), most))

    def _longer(self, name: str) -> Iterator[str]:
        start = f"{name[::-1]}."
        for place in range(bisect_left(self._mirrored, start), len(self._mirrored)):
            if not self._mirrored[place].startswith(start):
                return
            yield self._mirrored[place][::-1]


def match_modules(first: Sequence[str], second: Sequence[str]) -> Matched:
    """Pair the modules of two adapters: equal names, then paths of which one ends with the other, then other spellings.

    A path that could be several is left over rather than guessed. Two adapters of one module each are a pair
    whatever they are called. Spellings are those of `subspace.adapters.names.spellings`, and names whose dots became
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
    spelled = _by_spelling(pairs, first, second)
    taken = set(pairs.values())
    return Matched(
        [(name, pairs[name]) for name in first if name in pairs],
        [name for name in first if name not in pairs],
        [name for name in second if name not in taken],
        spelled,
    )


def _by_spelling(pairs: dict[str, str], first: Sequence[str], second: Sequence[str]) -> dict[str, Hit]:
    """Add the pairs of what is left over whose names are two spellings of one; how each was found."""
    taken = set(pairs.values())
    rest_first = [name for name in first if name not in pairs]
    rest_second = [name for name in second if name not in taken]
    if not (rest_first and rest_second):
        return {}
    from subspace.adapters.names.spelling import by_spelling

    found = by_spelling(rest_first, rest_second)
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


def _suffixes(name: str) -> Iterator[str]:
    """Proper dotted suffixes of a path, at most 64: "a.b.c" -> "b.c", "c"."""
    place = name.find(".")
    for _ in range(_DEEPEST):
        if place < 0:
            return
        yield name[place + 1 :]
        place = name.find(".", place + 1)
