"""Which layers PEFT adapts by a configuration: ``target_modules`` for exactly the modules of a file.

References
----------
huggingface/peft 0.21, tuners/tuners_utils.py: ``check_target_module_exists``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from subspace.adapters.naming.peft_patterns import Patterns
from subspace.errors import FormatError

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

    Examples
    --------
    >>> choose({"target_modules": ["q"], "exclude_modules": r"h[.]1[.].*"}, ["h.0.q"]), choose({}, ["h.0.q"])
    (True, False)
    """
    layers, excluded = config.get("layers_to_transform"), config.get("exclude_modules")
    if layers not in (None, []) and isinstance(config.get("target_modules"), list):
        wanted = {layers} if isinstance(layers, int) else set(layers) if isinstance(layers, list) else set()
        if not all(_layer(module) in wanted for module in modules):
            return False
    chosen, left_out = _matching(config.get("target_modules")), _matching(excluded)
    return all(chosen(module) and not left_out(module) for module in modules)


def _matching(names: Any) -> Callable[[str], bool]:
    """Whether PEFT takes a module for one of these: an expression of whole names, or a list of their ends."""
    if isinstance(names, str) and names:
        return partial(_fits, names)
    ends = set(map(str, names)) if isinstance(names, list) else set()
    return lambda module: _ends_in(module, ends)


def _fits(expression: str, module: str) -> bool:
    try:
        return Patterns({f"^(?:{expression})$": True}, where="target_modules").match(module) is True
    except FormatError:  # an expression that could take too long: whoever wrote it knows what it chooses
        return True


def _layer(module: str) -> int | None:
    """The first number in a dotted path, which PEFT takes for that of the layer."""
    return next((int(part) for part in module.split(".") if part.isdecimal()), None)


def _ends_in(module: str, names: Collection[str]) -> bool:
    """Whether a dotted path is one of the names, or ends in one behind a dot."""
    parts = module.split(".")
    return any(".".join(parts[n:]) in names for n in range(min(len(parts), 64)))
