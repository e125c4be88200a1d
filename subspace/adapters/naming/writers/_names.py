"""How a library names modules: what each file of this folder declares, and a function that most of them use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["ModelNames", "WriterNames", "by_layer", "by_model"]


@dataclass(frozen=True)
class ModelNames:
    """Full names in a model of transformers of what a library calls otherwise.

    Attributes
    ----------
    before : what the name of a layer begins with, "model."
    parts : part of a layer -> its name, with ``{n}`` for the number of the layer
    whole : name outside the layers -> its full name
    """

    before: str
    parts: Mapping[str, str]
    whole: Mapping[str, str]


@dataclass(frozen=True)
class WriterNames:
    """How a library names modules.

    Attributes
    ----------
    name : as shown to the user
    about : one line: whose names these are, with their source
    translate : a name -> the names that the module may have elsewhere; none for a name of another library
    reordered : whether the library stores the rows of a module's weight (d_out) in an order of its own
    full_names : a name -> kind of model -> the full name in such a model of transformers; none for a name of another
        library
    """

    name: str
    about: str
    translate: Callable[[str], tuple[str, ...]]
    reordered: Callable[[str], bool] = lambda module: False
    full_names: Callable[[str], Mapping[str, str]] = lambda module: {}


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


def by_model(name: str, *, layer: re.Pattern[str], models: Mapping[str, ModelNames]) -> dict[str, str]:
    """Kind of model -> the full name of a module in it, of the kinds that have the module.

    Parameters
    ----------
    layer : as in `by_layer`

    Examples
    --------
    >>> by_model("blk.3.ffn_up", layer=re.compile(r"blk[.](?P<n>[0-9]+)[.](?P<part>.+)"),
    ...     models={"LLaMA": ModelNames("model.", {"ffn_up": "layers.{n}.mlp.up_proj"}, {})})
    {'LLaMA': 'model.layers.3.mlp.up_proj'}
    """
    match = layer.fullmatch(name)
    found = {}
    for kind, names in models.items():
        if match is not None and match["part"] in names.parts:
            found[kind] = names.before + names.parts[match["part"]].format(n=match["n"])
        elif match is None and name in names.whole:
            found[kind] = names.whole[name]
    return found
