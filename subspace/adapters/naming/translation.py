"""One module under the names that different writers give it: ``layers.0.attn.q_proj`` is ``blk.0.attn_q``.

A writer's spelling is one file in `subspace.adapters.naming.writers` that declares one object ``NAMES``; it is
found by being there. Names whose dots became underscores are matched by `subspace.adapters.naming.flattened`, since
they cannot be read without the names of the other side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from subspace.adapters.naming.flattened import FLATTENED, Flattened, is_flat
from subspace.adapters.naming.modules import Modules

__all__ = ["Hit", "Translations", "by_translation"]

_MOST = 8


class Hit(NamedTuple):
    """How two names were found to be one module's, and whether the rows of B may be in another order."""

    how: str
    reordered: bool = False


class _Way(NamedTuple):
    """One way to spell a module; `hit` is None for its own name."""

    spelled: str
    module: str
    hit: Hit | None


class Translations:
    """Names that are asked many times which of them is a module that another writer named.

    Examples
    --------
    >>> Translations(["model.layers.0.self_attn.v_proj"]).same("blk.0.attn_v")
    {'model.layers.0.self_attn.v_proj': Hit(how='llama.cpp', reordered=False)}
    >>> Translations(["unet.mid_block.to_q"]).same("lora_unet_mid_block_to_q")
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


def by_translation(first: Iterable[str], second: Iterable[str]) -> dict[str, tuple[str, Hit]]:
    """Unambiguous pairs, in both directions, of names that different writers give one module."""
    spellings = Translations(second)
    claims: dict[str, list[tuple[str, Hit]]] = defaultdict(list)
    for name in first:
        hits = spellings.same(name)
        if len(hits) == 1:
            ((other, hit),) = hits.items()
            claims[other].append((name, hit))
    return {names[0][0]: (other, names[0][1]) for other, names in claims.items() if len(names) == 1}


def _ways(name: str) -> Iterator[_Way]:
    from subspace.adapters.naming import writers as spellings

    yield _Way(name, name, None)
    for known in spellings.every():
        for spelled in known.translate(name):
            yield _Way(spelled, name, Hit(known.name, known.reordered(name)))
