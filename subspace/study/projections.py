"""What a model calls its attention projections."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from subspace.errors import InconclusiveError
from subspace.text import listed, shown

__all__ = ["Projections", "projections"]

# names of q, k, v and o in families of models
_FAMILIES = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("query", "key", "value", "attention.output.dense"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("query_proj", "key_proj", "value_proj", "attention.output.dense"),
    ("q", "k", "v", "o"),
    ("c_attn[q]", "c_attn[k]", "c_attn[v]", "attn.c_proj"),
)


@dataclass(frozen=True)
class Projections:
    """Ends of the names of a model's attention projections; ``c_attn[q]`` is the first third of a fused layer."""

    q: str
    k: str
    v: str
    o: str


def projections(modules: Iterable[str], model: str) -> Projections:
    """Return the names of a model's projections: those of the first family of which it has all four.

    Raises
    ------
    InconclusiveError : it has none

    Examples
    --------
    >>> projections(["layer.0.query", "layer.0.key", "layer.0.value", "layer.0.attention.output.dense"], "bert").v
    'value'
    """
    known = list(modules)
    for family in _FAMILIES:
        ends = [re.compile(rf"(?:^|\.){re.escape(name)}$") for name in family]
        if all(any(end.search(module) for module in known) for end in ends):
            return Projections(*family)
    raise InconclusiveError(
        f"The projections of {shown(model)} are not known: a study needs a model whose q, k, v and o are layers of "
        f"their own, or a GPT-2, with names such as {'; '.join(', '.join(family) for family in _FAMILIES)}, and it has "
        f"{listed(known)}; choose another model"
    )
