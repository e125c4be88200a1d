"""New names for modules, where two adapters have names that no rule can match."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters.place import place
from subspace.errors import FormatError
from subspace.text import listed, shown

if TYPE_CHECKING:
    from subspace.adapters.adapter import Adapter
    from subspace.adapters.base.weights import BaseWeights

__all__ = ["new_names", "renamed", "renamed_base"]


def renamed(adapter: Adapter, rename: Mapping[str, str]) -> Adapter:
    """The same adapter with new names of its modules; raises as `new_names` does."""
    names = new_names(adapter, rename, adapter.path)
    updates = {names[module]: replace(update, module=names[module]) for module, update in adapter.items()}
    stored = {new: adapter.stored_names.get(old, old) for old, new in names.items() if new != old}
    return replace(adapter, updates=updates, stored_names=stored)


def renamed_base(base: BaseWeights, rename: Mapping[str, str]) -> BaseWeights:
    """The same base weights with new names of their modules; raises as `new_names` does."""
    names = new_names(base.modules, rename, base.path)
    return replace(base, modules={names[module]: key for module, key in base.modules.items()})


def new_names(names: Collection[str], rename: Mapping[str, str], path: str) -> dict[str, str]:
    """Name -> new name of every module; of several rules, the one for the longest part of a name applies.

    Parameters
    ----------
    names : of modules
    rename : old -> new, each a module or a dotted prefix of modules; an empty old adds a prefix to every name, an
        empty new removes the prefix. An old with * is a pattern for whole names: each * in new stands for what the *
        in its place matched. A rule without * comes before one with it.
    path : of the file, for a message

    Raises
    ------
    FormatError : a rule applies to no module, has more * in new than in old, or gives two modules one name

    Examples
    --------
    >>> new_names(["h.0.q", "h.1.q"], {"h": "model.layers", "h.1": "tail"}, "a.pt")
    {'h.0.q': 'model.layers.0.q', 'h.1.q': 'tail.q'}
    >>> new_names(["h.0.attn.q"], {"h.*.attn.*": "layers.*.self_attn.*_proj"}, "a.pt")
    {'h.0.attn.q': 'layers.0.self_attn.q_proj'}
    """
    patterns = {old: _pattern(old, new, path) for old, new in rename.items() if "*" in old}
    used: set[str] = set()
    result: dict[str, str] = {}
    for name in names:
        rule = _rule(name, rename)
        if rule is None:
            rule, result[name] = _by_pattern(name, patterns, rename)
        else:
            result[name] = _renamed(name, rule.rstrip("."), rename[rule].rstrip("."))
        used.update([] if rule is None else [rule])
    for old in rename:
        if old not in used:
            raise FormatError(
                f"No module to rename: none is called {shown(repr(old))} or begins with it, in {place(path)}; its "
                f"modules are {listed(names)}"
            )
    _require_apart(result, path)
    return result


def _rule(name: str, rename: Mapping[str, str]) -> str | None:
    """The old name that is the longest part of `name`; up to a dot, or the brackets of a group."""
    parts = [name, *(name[:n] for n in range(len(name) - 1, 0, -1) if name[n] in ".["), ""]
    return next((old for part in parts for old in (part, f"{part}.") if old in rename), None)


def _pattern(old: str, new: str, path: str) -> re.Pattern[str]:
    """An expression of names in which each * of `old` is a group."""
    if new.count("*") > old.count("*"):
        raise FormatError(
            f"Too many *: {shown(repr(new))} has more "
            f"* than {shown(repr(old))}, in `rename` for {place(path)}; each * of the new "
            "name stands for one of the old"
        )
    return re.compile("(.*?)".join(map(re.escape, old.split("*"))), re.DOTALL)


def _by_pattern(
    name: str, patterns: Mapping[str, re.Pattern[str]], rename: Mapping[str, str]
) -> tuple[str | None, str]:
    """The first pattern that a name matches, and the new name; None and the name itself where there is none."""
    for old, pattern in patterns.items():
        match = pattern.fullmatch(name)
        if match is not None:
            words = rename[old].split("*")
            return old, "".join(
                a + b for a, b in zip(words, [*match.groups()[: len(words) - 1], ""], strict=True)
            )
    return None, name


def _renamed(name: str, old: str, new: str) -> str:
    rest = name[len(old) :]
    if not old:
        return f"{new}.{rest}" if new and rest else new or rest
    return f"{new}{rest}" if new else rest.removeprefix(".")


def _require_apart(result: Mapping[str, str], path: str) -> None:
    olds: dict[str, str] = {}
    for old, new in result.items():
        if olds.setdefault(new, old) != old:
            raise FormatError(
                f"Two modules would have the name {shown(repr(new))}: {shown(olds[new])} and {shown(old)}, in "
                f"{place(path)}; give each a name of its own with `rename`"
            )
