"""Names that different libraries give to one module: ``layers.0.attn.q_proj`` is ``blk.0.attn_q``.

The names of a library are one file in `subspace.adapters.naming.writers` that declares one object ``NAMES``; it is
found by being there. Names whose dots became underscores are matched by `subspace.adapters.naming.flattened`, which
needs the names of the other side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from subspace.adapters.naming.containers import Containers
from subspace.adapters.naming.flattened import FLATTENED, Flattened, HalfFlattened, is_flat
from subspace.adapters.naming.image_models import are_other_components
from subspace.adapters.naming.modules import Modules

__all__ = ["Hit", "Translations", "by_translation", "names_elsewhere"]

_MOST = 8
_MOST_WAYS = 16
_OTHER_VERSION = "another transformers version's"


class Hit(NamedTuple):
    """How two names were found to be of one module, and whether the rows of B may be in another order."""

    how: str
    reordered: bool = False


class _Way(NamedTuple):
    """A name of a module: its own, for which `hit` is None, or that of another library."""

    name: str
    module: str
    hit: Hit | None


class Translations:
    """Names of modules that are searched many times for a name that another library gave.

    Examples
    --------
    >>> Translations(["model.layers.0.self_attn.v_proj"]).same("blk.0.attn_v")
    {'model.layers.0.self_attn.v_proj': Hit(how='llama.cpp', reordered=False)}
    >>> Translations(["unet.mid_block.to_q"]).same("lora_unet_mid_block_to_q")
    {'unet.mid_block.to_q': Hit(how='flattened', reordered=False)}
    >>> list(Translations(["model.language_model.layers.0.q"]).same("language_model.model.layers.0.q"))
    ['model.language_model.layers.0.q']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._ways: dict[str, list[_Way]] = defaultdict(list)
        for name in names:
            for way in _ways(name):
                # so many are ambiguous already
                if len(self._ways[way.name]) < _MOST_WAYS:
                    self._ways[way.name].append(way)

    @cached_property
    def _modules(self) -> Modules:
        return Modules(self._ways)

    @cached_property
    def _flattened(self) -> Flattened:
        return Flattened(self._ways)

    @cached_property
    def _containers(self) -> Containers:
        return Containers(self._ways)

    @cached_property
    def _half_flattened(self) -> HalfFlattened:
        return HalfFlattened(self._ways)

    @cached_property
    def _has_flat(self) -> bool:
        return any(map(is_flat, self._ways))

    def same(self, name: str) -> dict[str, Hit]:
        """The modules that another library may call `name`, and how each was found; more than one is ambiguous."""
        found: dict[str, Hit] = {}
        ways = list(_ways(name))
        for asked in ways:
            for other in self._containers.same(asked.name):
                self._add(found, asked, other, _OTHER_VERSION)
        if len(found) == 1:  # a whole path says more than the end of one
            return found
        for asked in ways:
            for other in self._modules.same(asked.name, most=_MOST):
                self._add(found, asked, other, None)
            if self._has_flat or is_flat(asked.name):
                for other in self._flattened.same(asked.name):
                    self._add(found, asked, other, FLATTENED)
        if not found:
            for asked in ways:
                for other in self._half_flattened.same(asked.name):
                    self._add(found, asked, other, FLATTENED)
        return found

    def _add(self, found: dict[str, Hit], asked: _Way, other: str, by: str | None) -> None:
        for way in self._ways[other]:
            hits = [hit for hit in (asked.hit, way.hit) if hit is not None]
            how = " and ".join(dict.fromkeys([*([by] if by else []), *(hit.how for hit in hits)]))
            # names without any translation were matched before this; the rest of a name may be one of two models
            if how and not are_other_components(asked.module, way.module):
                found.setdefault(way.module, Hit(how, any(hit.reordered for hit in hits)))


def by_translation(first: Iterable[str], second: Iterable[str]) -> dict[str, tuple[str, Hit]]:
    """First name -> (second name, how it was found), of pairs that are unambiguous in both directions."""
    translations = Translations(second)
    claims: dict[str, list[tuple[str, Hit]]] = defaultdict(list)
    for name in first:
        hits = translations.same(name)
        if len(hits) == 1:
            ((other, hit),) = hits.items()
            claims[other].append((name, hit))
    return {names[0][0]: (other, names[0][1]) for other, names in claims.items() if len(names) == 1}


def names_elsewhere(name: str) -> list[str]:
    """The names that a module may have in other libraries.

    Examples
    --------
    >>> names_elsewhere("transformer.transformer_blocks.0.attn.to_q")[:2]
    ['double_blocks.0.img_attn.qkv[q]', 'double_blocks.0.img_attn_qkv[q]']
    """
    return [way.name for way in _ways(name) if way.hit is not None]


def _ways(name: str) -> Iterator[_Way]:
    from subspace.adapters.naming import writers

    yield _Way(name, name, None)
    for known in writers.every():
        for other in known.translate(name):
            yield _Way(other, name, Hit(known.name, known.reordered(name, other)))
