"""Modules of a model by patterns of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training.layer_shapes import kind_of

__all__ = ["ancestors", "ends", "listed", "matches", "targets_in"]


def targets_in(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules that any pattern names, in the model's order.

    A pattern is a module's name or the end of one after a dot (``q_proj``, ``attn.c_attn``), as PEFT's
    ``target_modules``; with ``*``, ``?`` or ``[`` it is matched as a file name is, also at the end of a name
    (``layers.3.*_proj``).

    Raises
    ------
    ValueRangeError : there is no pattern, or one names nothing; the names that exist are listed
    """
    names = [name for name, module in model.named_modules() if name and kind_of(module)]
    found: set[str] = set()
    if not patterns:
        raise ValueRangeError(f"at least one target must be named: got none; there are {ends(names)}")
    for pattern in listed(patterns):
        hits = {name for name in names if matches(name, pattern)}
        if not hits:
            raise ValueRangeError(
                f"a target must name a layer of the model: got {shown(pattern)}; there are {ends(names)}"
            )
        found |= hits
    return [name for name in names if name in found]


def listed(patterns: Sequence[str]) -> Sequence[str]:
    """Patterns, of which a single one may be given as it is."""
    return (patterns,) if isinstance(patterns, str) else patterns


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a module; see `targets_in`."""
    if re.search(r"[*?\[]", pattern):
        return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
    return name == pattern or name.endswith(f".{pattern}")


def ends(names: Sequence[str]) -> str:
    """The distinct last parts of names, or names without a dot."""
    last = list(dict.fromkeys(re.sub(r"^(.*\.)?(?=[^.]*[^.\d][^.]*$)", "", name) for name in names))
    return ", ".join(map(shown, last[:40])) + (", ..." if len(last) > 40 else "") or "none"


def ancestors(name: str) -> Iterator[str]:
    """A parameter's name and those of the modules that it is in."""
    while name:
        yield name
        name = name.rpartition(".")[0]
