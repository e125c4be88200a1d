"""Attention layers of torch as PEFT stores them: ``out_proj`` inside the layer, with its rank and alpha.

PEFT adapts ``nn.MultiheadAttention`` as a whole: the factors of ``in_proj_weight`` have the name of the layer, those
of ``out_proj`` are in ``attn.base_layer.out_proj``; ``attn.out_proj`` it would not find.
"""

from __future__ import annotations

from collections.abc import Sequence

from subspace.adapters.formats._peft_modules import Stored, is_attention
from subspace.adapters.layer import Layer
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["out_projections", "require_alike", "stored_name"]


def out_projections(layers: Sequence[Layer]) -> dict[str, str]:
    """Module of every ``out_proj`` of an attention layer whose ``in_proj_weight`` is adapted too -> that layer."""
    sides = {layer.module: Stored(layer.r, layer.B.shape[0], layer.A.shape[1]) for layer in layers}
    found = {}
    for module, own in sides.items():
        parent, _, last = module.rpartition(".")
        if last == "out_proj" and parent in sides and is_attention(sides[parent], own):
            found[module] = parent
    return found


def stored_name(module: str, inner: dict[str, str]) -> str:
    """Name of a module in the keys.

    Examples
    --------
    >>> stored_name("attn.out_proj", {"attn.out_proj": "attn"}), stored_name("attn", {"attn.out_proj": "attn"})
    ('attn.base_layer.out_proj', 'attn')
    """
    return f"{inner[module]}.base_layer.out_proj" if module in inner else module


def require_alike(layers: Sequence[Layer], inner: dict[str, str]) -> None:
    """Check that both pairs of an attention layer have one rank and one scale.

    Raises
    ------
    FormatError : they differ
    """
    numbers = {layer.module: (layer.r, layer.known_scale) for layer in layers}
    for module, parent in inner.items():
        if numbers[module] != numbers[parent]:
            raise FormatError(
                "PEFT cannot hold an attention layer whose in_proj and out_proj have different ranks or scales: r = "
                f"{numbers[parent][0]} and {numbers[module][0]}, scale {numbers[parent][1]} and {numbers[module][1]}, "
                f"in module {shown(parent)}; choose another format"
            )
