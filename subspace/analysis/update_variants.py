"""What is put onto a model to be measured: adapters, the same cut to lower ranks, and weighted sums, by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from subspace.adapters import Adapter
from subspace.analysis.resolve import Loading
from subspace.analysis.truncate import truncate
from subspace.analysis.weight_changes import require_modules
from subspace.errors import ValueRangeError
from subspace.text import listed, shown

__all__ = ["BASE", "Variant", "named_sources", "variants_of"]

BASE = "base"
_TERM = re.compile(r"\s*(?:(?P<weight>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*\*)?\s*(?P<name>.*\S)\s*", re.DOTALL)
_CUT = re.compile(r"(?P<name>.+)@r=(?P<rank>[0-9]+)", re.DOTALL)
_WEIGHTS = "adapter_model.", "pytorch_lora_weights.", "adapters.", "adapter.", "model."

Merge: TypeAlias = "str | Mapping[str, float]"


@dataclass(frozen=True)
class Variant:
    """One thing that is put onto the model.

    Attributes
    ----------
    name : "base" for nothing, the name of an adapter, "NAME@r=4" for one cut to rank 4, or a weighted sum
    kind : "base", "adapter", "truncated" or "merged"
    terms : adapters with the weights of their sum
    of : name of the whole adapter that was cut
    rank : that it was cut to
    """

    name: str
    kind: str
    terms: tuple[tuple[float, Adapter], ...] = ()
    of: str | None = None
    rank: int | None = None


def named_sources(updates: Any) -> dict[str, Any]:
    """Return name -> source of what a user gives as updates: a mapping, a sequence of sources, or one source.

    A path is called by its last part, and by more of it where two would have one name.

    Examples
    --------
    >>> list(named_sources(["runs/a/r8", "runs/b/r8", "x/r4/adapter_model.safetensors"]))
    ['a/r8', 'b/r8', 'r4']
    """
    if isinstance(updates, Mapping) and not isinstance(updates, Adapter) and not _are_tensors(updates):
        return {str(name): source for name, source in updates.items()}
    several = isinstance(updates, Iterable) and not isinstance(updates, str | bytes | os.PathLike | Mapping)
    sources = list(updates) if several and not hasattr(updates, "state_dict") else [updates]
    words = [_words(source) for source in sources]
    names = ["/".join(each[-_needed(each, words) :]) for each in words]
    for n, name in enumerate(names):
        if name in names[:n]:
            names[n] = f"{name}#{names[: n + 1].count(name)}"
    return dict(zip(names, sources, strict=True))


def _are_tensors(updates: Mapping[Any, Any]) -> bool:
    return any(hasattr(value, "shape") for value in updates.values())


def _words(source: Any) -> list[str]:
    """The parts of a source's path, without the customary name of a file in a directory."""
    path = source.path if isinstance(source, Adapter) else source
    if not isinstance(path, str | bytes | os.PathLike):
        return ["adapter"]
    words = [word for word in re.split(r"[/\\]", os.fsdecode(path).rstrip("/\\")) if word not in ("", ".")]
    if len(words) > 1 and words[-1].startswith(_WEIGHTS):
        words.pop()
    return words or ["adapter"]


def _needed(words: list[str], others: list[list[str]]) -> int:
    """How many parts of a path tell it from the others."""
    for n in range(1, len(words)):
        if sum(each[-n:] == words[-n:] for each in others) == 1:
            return n
    return 1 if sum(each == words for each in others) > 1 else len(words)


def variants_of(
    sources: Mapping[str, Any], loading: Loading, *, ranks: Sequence[int] = (), merge: Sequence[Merge] = ()
) -> list[Variant]:
    """Return the base alone, then each adapter, whole and cut to each rank, then the sums.

    Parameters
    ----------
    sources : name -> adapter, as `load_adapter` takes it
    loading : how they are read
    ranks : that each is cut to as well
    merge : "sum" and "mean" of all adapters, expressions such as "0.5*a + 0.5*b@r=4", or mappings of name to weight

    Raises
    ------
    ValueRangeError : a sum of no adapters or of unknown ones, a name that two variants have
    """
    if BASE in sources:
        raise ValueRangeError(
            f"An adapter cannot be called '{BASE}', which is the model alone; give it another name"
        )
    adapters = {name: loading.adapter(source) for name, source in sources.items()}
    if loading.base is not None:
        for adapter in adapters.values():  # before any is cut, which takes time
            require_modules(loading.base, adapter)
    variants = [Variant(BASE, BASE)]
    for name, adapter in adapters.items():
        variants.append(Variant(name, "adapter", ((1.0, adapter),)))
        variants += [_cut(name, adapter, rank) for rank in ranks]
    variants += [_merged(each, adapters) for each in merge]
    names = [variant.name for variant in variants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueRangeError(f"Two things to measure have one name: {listed(sorted(twice))}; give each once")
    return variants


def _cut(name: str, adapter: Adapter, rank: int) -> Variant:
    low = truncate(adapter, rank=rank).adapter
    return Variant(f"{name}@r={rank}", "truncated", ((1.0, low),), of=name, rank=rank)


def _merged(merge: Merge, adapters: Mapping[str, Adapter]) -> Variant:
    weights = _weights(merge, adapters)
    if not weights:
        raise ValueRangeError("There is no adapter to merge; give some as `updates`")
    terms = tuple((weight, _term(name, adapters)) for name, weight in weights)
    name = merge if isinstance(merge, str) else " + ".join(f"{weight:g}*{name}" for name, weight in weights)
    return Variant(name.strip(), "merged", terms)


def _weights(merge: Merge, adapters: Mapping[str, Adapter]) -> list[tuple[str, float]]:
    """Names and weights of a sum."""
    if not isinstance(merge, str):
        return [(name, float(weight)) for name, weight in merge.items()]
    if merge in ("sum", "mean") and merge not in adapters:
        return [(name, 1.0 if merge == "sum" else 1 / len(adapters)) for name in adapters]
    return [_weighted(term, merge) for term in merge.split("+")]


def _weighted(term: str, merge: str) -> tuple[str, float]:
    match = _TERM.fullmatch(term)
    try:
        assert match is not None
        return match["name"], float(match["weight"] or 1)
    except (AssertionError, ValueError):
        raise ValueRangeError(
            f"Cannot read the sum of adapters '{shown(merge)}'; give `merge` as sum, mean, or such as 0.5*a+0.5*b"
        ) from None


def _term(name: str, adapters: Mapping[str, Adapter]) -> Adapter:
    if name in adapters:
        return adapters[name]
    match = _CUT.fullmatch(name)
    if match is None or match["name"] not in adapters:
        raise ValueRangeError(
            f"No adapter is called '{shown(name)}', which is to be merged; there are {listed(adapters, most=8)}"
        )
    return truncate(adapters[match["name"]], rank=int(match["rank"])).adapter
