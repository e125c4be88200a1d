"""Modules under the names that the user gives them, where no rule knows that two names are one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters.adapter import Adapter
    from subspace.adapters.base.weights import BaseWeights

__all__ = ["new_names", "renamed", "renamed_base"]


def renamed(adapter: Adapter, rename: Mapping[str, str]) -> Adapter:
    """The same adapter, its modules under other names; errors as `new_names`."""
    names = new_names(adapter, rename, adapter.path)
    updates = {names[module]: replace(update, module=names[module]) for module, update in adapter.items()}
    stored = {new: adapter.stored_names.get(old, old) for old, new in names.items() if new != old}
    return replace(adapter, updates=updates, stored_names=stored)


def renamed_base(base: BaseWeights, rename: Mapping[str, str]) -> BaseWeights:
    """The same base weights, their modules under other names; errors as `new_names`."""
    names = new_names(base.modules, rename, base.path)
    return replace(base, modules={names[module]: key for module, key in base.modules.items()})


def new_names(names: Collection[str], rename: Mapping[str, str], path: str) -> dict[str, str]:
    """Every name with its new one; of several rules the one for the longest part of the name counts.

    Parameters
    ----------
    rename : old -> new, each a module or a dotted prefix of modules; an empty old stands before every name, an
        empty new takes the prefix away

    Raises
    ------
    FormatError : a rule is for no module, or two modules would have one name

    Examples
    --------
    >>> new_names(["h.0.q", "h.1.q"], {"h": "model.layers", "h.1": "tail"}, "a.pt")
    {'h.0.q': 'model.layers.0.q', 'h.1.q': 'tail.q'}
    """
    used: set[str] = set()
    made: dict[str, str] = {}
    for name in names:
        rule = _rule(name, rename)
        if rule is not None:
            used.add(rule)
        made[name] = name if rule is None else _renamed(name, rule.rstrip("."), rename[rule].rstrip("."))
    for old in rename:
        if old not in used:
            raise FormatError(
                f"a map must rename a module: got {shown(repr(old))}, and none is called or begins so, in "
                f"{shown(path, longest=1000)}; its first module is {shown(repr(next(iter(names), '')))}"
            )
    _require_apart(made, path)
    return made


def _rule(name: str, rename: Mapping[str, str]) -> str | None:
    """The old name that is the longest part of `name`; up to a dot, or the brackets of a group."""
    parts = [name, *(name[:n] for n in range(len(name) - 1, 0, -1) if name[n] in ".["), ""]
    return next((old for part in parts for old in (part, f"{part}.") if old in rename), None)


def _renamed(name: str, old: str, new: str) -> str:
    rest = name[len(old) :]
    if not old:
        return f"{new}.{rest}" if new and rest else new or rest
    return f"{new}{rest}" if new else rest.removeprefix(".")


def _require_apart(made: Mapping[str, str], path: str) -> None:
    olds: dict[str, str] = {}
    for old, new in made.items():
        if olds.setdefault(new, old) != old:
            raise FormatError(
                f"a map must keep modules apart: got {shown(olds[new])} and {shown(old)}, which would both be "
                f"{shown(repr(new))}, in {shown(path, longest=1000)}; name the modules one by one"
            )
