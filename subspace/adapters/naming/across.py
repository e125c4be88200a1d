"""One name for each module of many adapters, whatever their files call it.

Names are matched once for every new way of writing them, not for every pair of adapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from subspace.adapters.naming.matching import match_names
from subspace.adapters.naming.modules import Modules

__all__ = ["CommonNames", "in_best_order"]


class CommonNames:
    """Names of the modules of many adapters, one for each module.

    An adapter's names are matched with those that are known by the rules of `match_modules`; what matches none is a
    module of its own from then on.

    Parameters
    ----------
    known : mapping of str to str
        Name in a file -> common name, as `aliases` of earlier ones has it.

    Attributes
    ----------
    aliases : dict of str to str
        Every name that was met -> its common name.
    ambiguous : dict of str to list of str
        Names that could be several modules -> those that they could be; each is a module of its own.
    reordered : dict of str to str
        Names in another library's words whose rows of B may be in another order -> the module that they are of; each
        is a module of its own.
    translated : dict of str to str
        Names that were matched by another library's words -> whose words those are.

    Examples
    --------
    >>> names = CommonNames()
    >>> names.of(["model.h.0.q", "model.h.0.v"])
    {'model.h.0.q': 'model.h.0.q', 'model.h.0.v': 'model.h.0.v'}
    >>> names.of(["h.0.q", "h.1.q"])
    {'h.0.q': 'model.h.0.q', 'h.1.q': 'h.1.q'}
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self.aliases: dict[str, str] = dict(known or {})
        self.ambiguous: dict[str, list[str]] = {}
        self.reordered: dict[str, str] = {}
        self.translated: dict[str, str] = {}
        # the longest dotted path of each module says the most: what fits it, fits all of them
        self._longest: dict[str, str] = {}
        for alias, common in self.aliases.items():
            self._lengthen(common, alias)

    def of(self, names: Sequence[str], *, rows_kept: bool = False) -> dict[str, str]:
        """Common name of each module of one adapter; names that are new are remembered.

        Parameters
        ----------
        names : of the modules of one adapter, which are all different modules
        rows_kept : whether the file is known to keep the rows of B in the order of the model
        """
        found: dict[str, str] = {}
        taken: set[str] = set()
        for name in names:
            common = self.aliases.get(name)
            if common is not None and common not in taken:
                found[name] = common
                taken.add(common)
        rest = [name for name in names if name not in found]
        if rest:
            found |= self._matched(rest, taken, rows_kept=rows_kept)
        return {name: found[name] for name in names}

    def _matched(self, rest: Sequence[str], taken: set[str], *, rows_kept: bool) -> dict[str, str]:
        """Common names of modules whose own are not known."""
        free = {longest: common for common, longest in self._longest.items() if common not in taken}
        matched = match_names(rest, list(free))
        found: dict[str, str] = {}
        for name, longest in matched.pairs:
            hit = matched.translated.get(name)
            if hit is not None and hit.reordered and not rows_kept:
                self.reordered[name] = free[longest]
                continue
            found[name] = free[longest]
            self._remember(name, free[longest], translated=hit is not None)
            if hit is not None:
                self.translated[name] = hit.how
        apart = [name for name in rest if name not in found]
        for name in self._ambiguous(apart, taken | set(found.values())):
            self.ambiguous[name] = sorted(Modules(self.aliases).same(name, most=3))
        for name in apart:
            found[name] = name
            self._remember(name, name)
        return found

    def _ambiguous(self, names: Sequence[str], taken: set[str]) -> list[str]:
        """Names that fit modules that are known and are none of them."""
        known = Modules(alias for alias, common in self.aliases.items() if common not in taken)
        return [name for name in names if name not in self.reordered and known.same(name, most=1)]

    def _remember(self, name: str, common: str, *, translated: bool = False) -> None:
        self.aliases.setdefault(name, common)
        if not translated:
            self._lengthen(common, name)

    def _lengthen(self, common: str, name: str) -> None:
        known = self._longest.get(common)
        if known is None or name.endswith(f".{known}"):
            self._longest[common] = name


def in_best_order(layouts: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Different lists of names, those with the longest paths first: they leave the least to doubt, in any order.

    Examples
    --------
    >>> in_best_order([["q"], ["h.0.q", "h.0.v"], ["q"]])
    [('h.0.q', 'h.0.v'), ('q',)]
    """
    different = {tuple(names) for names in layouts}
    return sorted(
        different, key=lambda names: (-max((n.count(".") for n in names), default=0), -len(names), names)
    )
