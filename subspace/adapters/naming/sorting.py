"""Names of modules in natural order, and the prefix that they share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["in_order", "shared_beginning"]

_NUMBER = re.compile(r"([0-9]+)")


def in_order(names: Iterable[str]) -> list[str]:
    """Names in natural order: layer 2 comes before layer 10.

    Examples
    --------
    >>> in_order(["h.10.q", "h.2.q"])
    ['h.2.q', 'h.10.q']
    """
    return sorted(names, key=_numbers_as_numbers)


def _numbers_as_numbers(name: str) -> tuple[list[tuple[int, str]], str]:
    """Text and numbers of a name in turn, a number as (length, digits); then the name, which orders 01 and 1."""
    parts = _NUMBER.split(name)
    parts[1::2] = [digits.lstrip("0") for digits in parts[1::2]]
    return [(len(part) if n % 2 else 0, part) for n, part in enumerate(parts)], name


def shared_beginning(modules: Sequence[str]) -> tuple[str, list[str]]:
    """The dotted prefix that all names share, and the names without it; a single name has no prefix.

    Examples
    --------
    >>> shared_beginning(["model.layers.0.q", "model.layers.1.q"])
    ('model.layers', ['0.q', '1.q'])
    >>> shared_beginning(["model.q"])
    ('', ['model.q'])
    """
    if len(set(modules)) < 2:
        return "", list(modules)
    paths = [module.split(".") for module in modules]
    n = 0
    while all(len(path) > n + 1 and path[n] == paths[0][n] for path in paths):
        n += 1
    return ".".join(paths[0][:n]), [".".join(path[n:]) for path in paths]
