"""Keys of PEFT: ``base_model.model.<module>.<part>``, in raw dumps with the name of the adapter behind the part."""

from __future__ import annotations

import re
from collections import defaultdict

from subspace.adapters.choice import chosen_adapter
from subspace.adapters.format import Ignored, Role, Source
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["pattern", "sorted_by_module"]

_PREFIX = "base_model.model."
_COPIES = {"modules_to_save", "original_module"}


def pattern(parts: str, *, suffix: str = "") -> re.Pattern[str]:
    """The expression of keys whose part is one of `parts` (an expression itself), with a last word `suffix`.

    Examples
    --------
    >>> pattern("ia3_l").fullmatch("base_model.model.h.0.q.ia3_l.default")["module"]
    'base_model.model.h.0.q'
    """
    return re.compile(rf"(?:(?P<module>.*)\.)?(?P<part>{parts})(?:\.(?P<name>[^.]+?))??{suffix}", re.DOTALL)


def sorted_by_module(
    source: Source, keys: re.Pattern[str]
) -> tuple[dict[str, dict[str, str]], list[Ignored]]:
    """Part -> key of each module of the chosen adapter; keys of the others with why they are ignored.

    Raises
    ------
    FormatError : a part of a module is there twice, or the file holds several adapters and none was chosen
    """
    found: dict[str | None, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for key in source.tensors.layout:
        match = keys.fullmatch(key)
        if match is not None and not _COPIES & set(key.split(".")):
            module = (match["module"] or "").removeprefix(_PREFIX)
            taken = found[match["name"]][module].setdefault(match["part"], key)
            if taken != key:
                raise FormatError(
                    f"a module must be adapted once: got {shown(taken)} and {shown(key)}, in {source.path}; "
                    "take one of them out"
                )
    if not found:
        return {}, []
    name = chosen_adapter(found, source.adapter_name, source.path)
    ignored = [
        Ignored(key, f"belongs to the adapter {shown(other or '(unnamed)')}", Role.OTHER_ADAPTER)
        for other, modules in found.items()
        if other != name
        for parts in modules.values()
        for key in parts.values()
    ]
    return dict(found[name]), ignored
