"""How a library names modules: what each file of this folder declares, and a function that most of them use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from subspace.adapters.naming.image_models import is_denoiser, split_component

__all__ = ["ModelNames", "WriterNames", "by_block", "by_layer", "by_model"]

_BLOCK = re.compile(r"(?P<block>[a-z_.]+?)\.(?P<n>[0-9]+)\.(?P<part>.+)", re.DOTALL)
_FLAT_BLOCK = re.compile(
    r"lora_(?:unet|transformer)_(?P<block>[a-z_]+?)_(?P<n>[0-9]+)_(?P<part>[^.]+)", re.DOTALL
)


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
    reordered : (a name, one of its names elsewhere) -> whether the library may store the rows of the weight (d_out) in
        an order of its own
    full_names : a name -> kind of model -> the full name in such a model of transformers; none for a name of another
        library
    """

    name: str
    about: str
    translate: Callable[[str], tuple[str, ...]]
    reordered: Callable[[str, str], bool] = lambda module, there: False
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


def by_block(
    name: str, *, blocks: Mapping[str, tuple[str, Mapping[str, str]]], whole: Mapping[str, str]
) -> tuple[str, ...]:
    """The name in a model's own code of a module of diffusers' transformer, in a numbered block or outside.

    In a block, dots may be underscores, as OneTrainer writes them.

    A part of a fused layer of that code is in brackets: ``double_blocks.0.img_attn.qkv[q]``.

    Parameters
    ----------
    blocks : block -> its name there, and part of the block -> its name there
    whole : name outside the blocks -> its name there

    Examples
    --------
    >>> parts = {"attn1.to_q": "self_attn.q"}
    >>> by_block("transformer.blocks.3.attn1.to_q", blocks={"blocks": ("blocks", parts)}, whole={})
    ('blocks.3.self_attn.q',)
    >>> by_block("lora_transformer_blocks_3_attn1_to_q", blocks={"blocks": ("blocks", parts)}, whole={})
    ('blocks.3.self_attn.q',)
    """
    flat = _FLAT_BLOCK.fullmatch(name)
    if flat is not None:
        found = (there for block, there in blocks.items() if block.replace(".", "_") == flat["block"])
        return tuple(
            f"{block}.{flat['n']}.{there}"
            for block, parts in found
            for part, there in parts.items()
            if part.replace(".", "_") == flat["part"]
        )
    component, rest = split_component(name)
    if component is not None and not is_denoiser(component):
        return ()
    rest = rest.removeprefix("transformer.")
    match = _BLOCK.fullmatch(rest)
    if match is None or match["block"] not in blocks:
        return (whole[rest],) if rest in whole else ()
    block, parts = blocks[match["block"]]
    return (f"{block}.{match['n']}.{parts[match['part']]}",) if match["part"] in parts else ()


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
