"""Modules of a model by patterns of their names, and names as short patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from subspace.checkpoints.wrapper_words import WRAPPER_WORDS
from subspace.errors import ValueRangeError
from subspace.text import listed, shown

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Exact",
    "adaptable",
    "ancestors",
    "as_patterns",
    "as_suffixes",
    "as_targets",
    "bare_name",
    "last_parts",
    "matches",
    "targets_in",
    "without",
]

ALL_LINEAR = "all-linear"
_HEADS = ("score", "classifier", "classification_head")


class Exact(str):
    """A pattern that is one name, and matches no other that ends alike."""

    __slots__ = ()


def targets_in(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Return the names of the modules that any pattern matches, in the model's order.

    Parameters
    ----------
    model : any module
    patterns : each a module's name or the end of one after a dot (``q_proj``, ``attn.c_attn``), as PEFT's
        ``target_modules``; with ``*``, ``?`` or ``[`` it is matched as a file name is, also at the end of a name
        (``layers.3.*_proj``); ``all-linear``, as PEFT has it, is every linear layer but the output layer and a
        classifier's head

    Raises
    ------
    ValueRangeError : there is no pattern, or one matches nothing; the names that exist are listed
    """
    names = adaptable(model)
    bare = {name: bare_name(name) for name in names}
    found: set[str] = set()
    if not patterns:
        raise ValueRangeError(f"No target was given; name some of the model's layers: {last_parts(names)}")
    for pattern in as_patterns(patterns):
        if pattern.lower() == ALL_LINEAR:
            hits = _all_linear(model, names)
        else:
            hits = {name for name in names if matches(bare[name], pattern)}
        if not hits:
            raise ValueRangeError(
                f"No layer matches the target '{shown(pattern)}'; the model has {last_parts(names)}"
            )
        found |= hits
    return [name for name in names if name in found]


def _all_linear(model: nn.Module, names: Sequence[str]) -> set[str]:
    """What PEFT adapts for ``all-linear``; of a classifier also nothing inside a head of several layers.

    References
    ----------
    peft/tuners/tuners_utils.py, ``_maybe_include_all_linear_layers``.
    """
    from subspace.training.layer_shapes import kind_of

    output = getattr(model, "get_output_embeddings", lambda: None)()
    heads = () if output is not None else _HEADS
    return {
        name
        for name in names
        if kind_of(module := model.get_submodule(name)) in ("linear", "conv1d")
        and module is not output
        and name.partition(".")[0] not in heads
    }


def without(chosen: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Return the chosen modules that are not, and are not in, a module that a pattern matches.

    Parameters
    ----------
    chosen : names of modules
    exclude : patterns; see `targets_in`

    Raises
    ------
    ValueRangeError : a pattern excludes nothing, or all patterns together everything
    """
    excluded: set[str] = set()
    for pattern in as_patterns(exclude):
        hits = {name for name in chosen if any(matches(part, pattern) for part in ancestors(bare_name(name)))}
        if not hits:
            raise ValueRangeError(
                f"No target matches '{shown(pattern)}', which is to be excluded; the targets are {last_parts(chosen)}"
            )
        excluded |= hits
    left = [name for name in chosen if name not in excluded]
    if not left:
        raise ValueRangeError(
            f"All targets are excluded: {listed(chosen)}; choose other `targets`, or narrow `exclude`"
        )
    return left


def adaptable(model: nn.Module) -> list[str]:
    """Return the names of the modules of a kind that can be adapted, in the model's order."""
    from subspace.training.layer_shapes import kind_of

    return [name for name, module in model.named_modules() if name and kind_of(module)]


def as_patterns(patterns: Sequence[str]) -> Sequence[str]:
    """Return patterns as a sequence, of which a single one may be given as a string."""
    return (patterns,) if isinstance(patterns, str) else patterns


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern matches the name of a module; see `targets_in`.

    Examples
    --------
    >>> matches("layers.3.q_proj", "q_proj"), matches("layers.3.q_proj", "layers.*.?_proj"), matches("qkv", "v")
    (True, True, False)
    """
    if isinstance(pattern, Exact):
        return name == pattern
    if re.search(r"[*?\[]", pattern):
        return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
    return name == pattern or name.endswith(f".{pattern}")


def last_parts(names: Sequence[str]) -> str:
    """Return the distinct last parts of names, for a message; the number before it goes with a part that is one.

    Examples
    --------
    >>> last_parts(["layers.0.q", "layers.1.q", "layers.1.v"]), last_parts([])
    ('q, v', 'none')
    """
    last = dict.fromkeys(re.sub(r"^(.*\.)?(?=[^.]*[^.\d][^.]*$)", "", name) for name in names)
    return listed(last, most=40)


def as_suffixes(model: nn.Module, chosen: Sequence[str]) -> list[str]:
    """Return the last parts of names where they match these modules of a model and no others, else the names."""
    ends = sorted({name.rpartition(".")[2] for name in chosen})
    matched = {name for name in _all_names(model) if name.rpartition(".")[2] in ends}
    return ends if matched == set(chosen) else list(chosen)


def as_targets(model: nn.Module, chosen: Sequence[str]) -> list[str] | str:
    """Return what PEFT's ``target_modules`` has to be to match these modules of a model and no others.

    A list of names or of their ends; an expression where one of the names is the end of another module's.

    Parameters
    ----------
    model : any module
    chosen : names of modules, without the words of wrappers

    References
    ----------
    peft/tuners/tuners_utils.py, ``check_target_module_exists``.
    """
    ends = as_suffixes(model, chosen)
    matched = {name for name in _all_names(model) if any(matches(name, end) for end in ends)}
    return ends if matched <= set(chosen) else "|".join(map(re.escape, chosen))


def bare_name(name: str) -> str:
    """Return the name of a module, parameter or buffer without the words of wrappers inside the model.

    Examples
    --------
    >>> bare_name("blocks.0._orig_mod.fc.weight")
    'blocks.0.fc.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPER_WORDS)


def _all_names(model: nn.Module) -> list[str]:
    return [bare_name(name) for name, _ in model.named_modules()]


def ancestors(name: str) -> Iterator[str]:
    """Yield a parameter's name and those of the modules that it is in, the innermost first.

    Examples
    --------
    >>> list(ancestors("layers.0.q"))
    ['layers.0.q', 'layers.0', 'layers']
    """
    while name:
        yield name
        name = name.rpartition(".")[0]
