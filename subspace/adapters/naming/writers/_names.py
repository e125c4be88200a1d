"""How one writer names modules: the value that each file of this folder declares, and what most of them need."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["WriterNames", "by_layer"]


@dataclass(frozen=True)
class WriterNames:
    """How one writer names modules.

    Attributes
    ----------
    name : as shown to the user
    about : one line: whose names these are, with their source
    translate : a module's name -> the names it may have elsewhere, none if it is not this writer's
    reordered : whether the writer keeps the rows of a module's weight (d_out) in an order of its own
    """

    name: str
    about: str
    translate: Callable[[str], tuple[str, ...]]
    reordered: Callable[[str], bool] = lambda module: False


def by_layer(
    name: str, *, layer: re.Pattern[str], parts: Mapping[str, tuple[str, ...]], whole: Mapping[str, str]
) -> tuple[str, ...]:
    """Names elsewhere of a module that is part of a numbered layer, or one of its own.

    Parameters
    ----------
    layer : with the groups ``n`` and ``part``
    parts : part of a layer -> its names elsewhere, ``{n}`` for the layer
    whole : name -> its name elsewhere

    Examples
    --------
    >>> by_layer("blk.3.ffn_up", layer=re.compile(r"blk[.](?P<n>[0-9]+)[.](?P<part>.+)"),
    ...     parts={"ffn_up": ("layers.{n}.mlp.up_proj",)}, whole={})
    ('layers.3.mlp.up_proj',)
    """
    match = layer.fullmatch(name)
    if match is None:
        return (whole[name],) if name in whole else ()
    return tuple(there.format(n=match["n"]) for there in parts.get(match["part"], ()))
