"""Keys of PEFT, ``base_model.model.<module>.<part>``, with the adapter's name behind the part in a raw state dict."""

from __future__ import annotations

import math
import re
from collections import defaultdict

from subspace.adapters.choice import chosen_adapter
from subspace.adapters.format import Ignored, Role, Source
from subspace.adapters.update import Scale
from subspace.checkpoints.peft_files import PREFIX
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["current_scale", "pattern", "sorted_by_module"]

_COPIES = {"modules_to_save", "original_module"}


def pattern(parts: str, *, suffix: str = "", not_names: str = "") -> re.Pattern[str]:
    """The expression of keys, with the groups ``module``, ``part`` and ``name`` (of the adapter).

    Parameters
    ----------
    parts : expression of a part
    suffix : expression of what ends a key
    not_names : expression of last words of a key that are no name of an adapter

    Examples
    --------
    >>> pattern("ia3_l").fullmatch("base_model.model.h.0.q.ia3_l.default")["module"]
    'base_model.model.h.0.q'
    """
    excluded = f"(?!(?:{not_names})$)" if not_names else ""
    return re.compile(
        rf"(?:(?P<module>.*)\.)?(?P<part>{parts})(?:\.(?P<name>{excluded}[^.]+?))??{suffix}", re.DOTALL
    )


def sorted_by_module(
    source: Source, keys: re.Pattern[str]
) -> tuple[dict[str, dict[str, str]], list[Ignored]]:
    """Module -> part -> key of the chosen adapter, and the keys of other adapters as ignored.

    Copies that PEFT keeps for ``modules_to_save`` are in neither.

    Raises
    ------
    FormatError : a part of a module is there twice, or the file holds several adapters and none was chosen
    """
    found: dict[str | None, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for key in source.tensors.layout:
        match = keys.fullmatch(key)
        if match is not None and not _COPIES & set((match["module"] or "").split(".")):
            module = (match["module"] or "").removeprefix(PREFIX)
            first = found[match["name"]][module].setdefault(match["part"], key)
            if first != key:
                raise FormatError(
                    f"Two tensors for {match['part']} of one module: {shown(first)} and {shown(key)}, in "
                    f"{source.place(module)}; take one of them out"
                )
    if not found:
        return {}, []
    name = chosen_adapter(found, source.adapter_name, source.path)
    ignored = [
        Ignored(key, f"part of the adapter {shown(other or '(unnamed)')}", Role.OTHER_ADAPTER)
        for other, modules in found.items()
        if other != name
        for parts in modules.values()
        for key in parts.values()
    ]
    return dict(found[name]), ignored


def current_scale(configured: Scale, module: str, source: Source) -> Scale:
    """The scale of the configuration; in a model in memory, that of the layer where it has been changed."""
    live = source.scales.get(module)
    value = configured.value
    if live is None or (value is not None and math.isclose(value, live, rel_tol=1e-9)):
        return configured
    return Scale(live, "module")
