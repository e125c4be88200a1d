"""How a library names modules: what each file of this folder declares, and a function that most of them use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["WriterNames", "by_layer"]


@dataclass(frozen=True)
class WriterNames:
    """How a library names modules.

    Attributes
    ----------
    name : as shown to the user
    about : one line: whose names these are, with their source
    translate : a name -> the names that the module may have elsewhere; none for a name of another library
    reordered : (a name, one of its names elsewhere) -> whether the library may store the rows of the weight (d_out) in
        an order of its own
    """

    name: str
    about: str
    translate: Callable[[str], tuple[str, ...]]
    reordered: Callable[[str, str], bool] = lambda module, there: False


def by_layer(
    name: str, *, layer: re.Pattern[str], parts: Mapping[str, tuple[str, ...]], whole: Mapping[str, str]
) -> tuple[str, ...]:
    """Names elsewhere of a module that is part of a numbered layer, or stands outside the layers.

    Parameters
    ----------
    layer : expression of a name in a layer, with the groups ``n`` and ``part``
    parts : part of a layer -> its names elsewhere, with ``{n}`` for the number of the layer
    whole : name outside the layers -> its name elsewhere

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
