"""Which layers PEFT adapts by a configuration: ``target_modules`` for exactly the modules of a file.

References
----------
huggingface/peft 0.21, tuners/tuners_utils.py: ``check_target_module_exists``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["CHOOSING", "choose", "targets_of"]

# the fields that choose layers together
CHOOSING = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def targets_of(modules: Iterable[str]) -> list[str] | str:
    r"""``target_modules`` that are these modules: a list of full names, or an expression where a name has no dot.

    PEFT takes a name in a list for the end of names too, so that "q" alone would be every q of the model.

    Examples
    --------
    >>> targets_of(["h.0.q", "h.1.q"]), targets_of(["lin0", "a+b"])
    (['h.0.q', 'h.1.q'], 'lin0|a\\+b')
    """
    names = list(modules)
    return names if all("." in name for name in names) else "|".join(map(re.escape, names))


def choose(config: Mapping[str, Any], modules: Collection[str]) -> bool:
    """Whether the fields of a configuration that choose layers choose all of these.

    An expression is taken at its word, and so are layers by their numbers: only names in lists are looked at.
    """
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return isinstance(targets, str)
    excluded = config.get("exclude_modules")
    ends = set(map(str, targets))
    out = set(map(str, excluded)) if isinstance(excluded, list) else set()
    return all(_ends_in(module, ends) and not _ends_in(module, out) for module in modules)


def _ends_in(module: str, names: Collection[str]) -> bool:
    """Whether a dotted path is one of the names, or ends in one behind a dot."""
    parts = module.split(".")
    return any(".".join(parts[n:]) in names for n in range(min(len(parts), 64)))
