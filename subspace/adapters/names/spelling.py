"""One module under the names that different writers give it: ``layers.0.attn.q_proj`` is ``blk.0.attn_q``.

A writer's spelling is one file in `subspace.adapters.names.spellings` that declares one object ``SPELLING``; it is
found by being there. Names whose dots became underscores are matched by `subspace.adapters.names.flattened`, since
they cannot be read without the names of the other side.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from subspace.adapters.names.flattened import FLATTENED, Flattened, is_flat
from subspace.adapters.names.matching import Modules

__all__ = ["Hit", "Spelling", "Spellings", "by_layer", "by_spelling"]

_MOST = 8


@dataclass(frozen=True)
class Spelling:
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


class Hit(NamedTuple):
    """How two names were found to be one module's, and whether the rows of B may be in another order."""

    how: str
    reordered: bool = False


class _Way(NamedTuple):
    """One way to spell a module; `hit` is None for its own name."""

    spelled: str
    module: str
    hit: Hit | None


class Spellings:
    """Names that are asked many times which of them is a module that another writer named.

    Examples
    --------
    >>> Spellings(["model.layers.0.self_attn.v_proj"]).same("blk.0.attn_v")
    {'model.layers.0.self_attn.v_proj': Hit(how='llama.cpp', reordered=False)}
    >>> Spellings(["unet.mid_block.to_q"]).same("lora_unet_mid_block_to_q")
    {'unet.mid_block.to_q': Hit(how='flattened', reordered=False)}
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._ways: dict[str, list[_Way]] = defaultdict(list)
        for name in names:
            for way in _ways(name):
                self._ways[way.spelled].append(way)

    @cached_property
    def _modules(self) -> Modules:
        return Modules(self._ways)

    @cached_property
    def _flattened(self) -> Flattened:
        return Flattened(self._ways)

    @cached_property
    def _has_flat(self) -> bool:
        return any(map(is_flat, self._ways))

    def same(self, name: str) -> dict[str, Hit]:
        """The modules that `name` may be under another spelling; more than one is ambiguous."""
        found: dict[str, Hit] = {}
        for asked in _ways(name):
            for spelled in self._modules.same(asked.spelled, most=_MOST):
                self._add(found, asked, spelled, None)
            if self._has_flat or is_flat(asked.spelled):
                for spelled in self._flattened.same(asked.spelled):
                    self._add(found, asked, spelled, FLATTENED)
        return found

    def _add(self, found: dict[str, Hit], asked: _Way, spelled: str, flat: str | None) -> None:
        for way in self._ways[spelled]:
            told = [hit for hit in (asked.hit, way.hit) if hit is not None]
            how = " and ".join(dict.fromkeys([*([flat] if flat else []), *(hit.how for hit in told)]))
            if how:  # the same name without any translation was tried before, and was not one alone
                found.setdefault(way.module, Hit(how, any(hit.reordered for hit in told)))


def by_spelling(first: Iterable[str], second: Iterable[str]) -> dict[str, tuple[str, Hit]]:
    """Unambiguous pairs, in both directions, of names that different writers give one module."""
    spellings = Spellings(second)
    claims: dict[str, list[tuple[str, Hit]]] = defaultdict(list)
    for name in first:
        hits = spellings.same(name)
        if len(hits) == 1:
            ((other, hit),) = hits.items()
            claims[other].append((name, hit))
    return {names[0][0]: (other, names[0][1]) for other, names in claims.items() if len(names) == 1}


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


def _ways(name: str) -> Iterator[_Way]:
    from subspace.adapters.names import spellings

    yield _Way(name, name, None)
    for known in spellings.every():
        for spelled in known.translate(name):
            yield _Way(spelled, name, Hit(known.name, known.reordered(name)))
