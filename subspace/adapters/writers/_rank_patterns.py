"""PEFT's default and patterns for a number per module, such that PEFT's matching gives every module its own."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

from subspace.adapters.naming.peft_patterns import Patterns

__all__ = ["patterns_for"]

_T = TypeVar("_T", int, float)
_PLAIN = re.compile(r"[\w.]+", re.ASCII)
_MOST_MATCHES = 10**6  # about a second


def patterns_for(numbers: Mapping[str, _T]) -> tuple[_T, dict[str, _T]]:
    r"""The most common number, and patterns for the modules that have another.

    A pattern is the last part of a name where all modules that end in it have one number, else a full name. PEFT
    matches a pattern at the end of a name, so where one would match another module too, all are anchored full names.

    Examples
    --------
    >>> patterns_for({"h.0.q": 8, "h.1.q": 8, "h.0.v": 4, "h.1.v": 4, "h.0.o": 8, "h.1.o": 2})
    (8, {'v': 4, 'h.1.o': 2})
    >>> patterns_for({"q": 8, "h.0.q": 4, "h.1.q": 8})
    (8, {'h.0.q': 4})
    >>> patterns_for({"q": 2, "h.q": 4, "g.q": 4})
    (4, {'^q$': 2})
    """
    default = Counter(numbers.values()).most_common(1)[0][0]
    by_end: dict[str, dict[str, _T]] = defaultdict(dict)
    for module, number in numbers.items():
        by_end[module.rpartition(".")[2]][module] = number
    patterns: dict[str, _T] = {}
    for end, modules in by_end.items():
        if set(modules.values()) == {default}:
            continue
        if len(set(modules.values())) == 1:
            patterns[end] = next(iter(modules.values()))
        else:
            patterns |= {module: number for module, number in modules.items() if number != default}
    if _resolve(patterns, default, numbers):
        return default, patterns
    return default, {
        f"^{re.escape(module)}$": number for module, number in numbers.items() if number != default
    }


def _resolve(patterns: Mapping[str, _T], default: _T, numbers: Mapping[str, _T]) -> bool:
    """Whether PEFT would give every module its number."""
    if not _are_plain(patterns) or len(patterns) * len(numbers) > _MOST_MATCHES:
        return not patterns
    matched = Patterns(patterns, where="rank_pattern")
    found = ((matched.match(module), number) for module, number in numbers.items())
    return all((default if value is None else value) == number for value, number in found)


def _are_plain(keys: Iterable[str]) -> bool:
    return all(_PLAIN.fullmatch(key) for key in keys)
