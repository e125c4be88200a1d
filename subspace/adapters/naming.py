"""Which module of one model is which of another: the same dotted path, whatever stands before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Matched", "match_modules", "same_module"]


class Matched(NamedTuple):
    """Pairs of names, and the names left over on either side."""

    pairs: list[tuple[str, str]]
    only_first: list[str]
    only_second: list[str]


def same_module(name: str, candidates: Iterable[str]) -> list[str]:
    """Candidates that name the module: itself, else those of which one path ends with the other.

    Examples
    --------
    >>> same_module("transformer.h.0.attn", ["h.0.attn", "h.1.attn"])
    ['h.0.attn']
    """
    candidates = list(candidates)
    if name in candidates:
        return [name]
    return [
        other for other in candidates if f".{other}".endswith(f".{name}") or f".{name}".endswith(f".{other}")
    ]


def match_modules(first: Sequence[str], second: Sequence[str]) -> Matched:
    """Pair the modules of two adapters: equal names, then paths of which one ends with the other.

    A path that could be several is left over rather than guessed. Two adapters of one module each are a pair
    whatever they are called.

    Examples
    --------
    >>> match_modules(["model.h.0.q", "model.h.1.q"], ["h.0.q", "h.2.q"])
    Matched(pairs=[('model.h.0.q', 'h.0.q')], only_first=['model.h.1.q'], only_second=['h.2.q'])
    """
    if len(first) == len(second) == 1:
        return Matched([(first[0], second[0])], [], [])
    there = set(second)
    pairs = {name: name for name in first if name in there}
    taken = set(pairs.values())
    rest_first = [name for name in first if name not in pairs]
    rest_second = [name for name in second if name not in taken]
    pairs |= _by_suffix(rest_first, rest_second)
    taken |= set(pairs.values())
    return Matched(
        [(name, pairs[name]) for name in first if name in pairs],
        [name for name in first if name not in pairs],
        [name for name in second if name not in taken],
    )


def _by_suffix(first: Sequence[str], second: Sequence[str]) -> dict[str, str]:
    """Unambiguous pairs of which one dotted path ends with the other; linear in the length of the paths."""
    longer = _suffix_index(second)
    exact = set(second)
    found = {}
    for name in first:
        hits = set(longer.get(name, ())) | {s for s in _suffixes(name) if s in exact}
        if name and len(hits) == 1:
            found[name] = hits.pop()
    claims: dict[str, list[str]] = defaultdict(list)
    for name, other in found.items():
        claims[other].append(name)
    return {names[0]: other for other, names in claims.items() if len(names) == 1}


def _suffix_index(names: Sequence[str]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for suffix in _suffixes(name):
            index[suffix].append(name)
    return index


_DEEPEST = 64


def _suffixes(name: str) -> list[str]:
    """Proper dotted suffixes of a path: "a.b.c" -> ["b.c", "c"]."""
    parts = name.split(".")
    return [".".join(parts[n:]) for n in range(1, min(len(parts), _DEEPEST))]
