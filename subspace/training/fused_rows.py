"""The rows of a fused layer of q, k and v that some of its groups are, by the layout that the model gives it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from subspace.checkpoints.fused_layouts import Parts, Ranges, equal_blocks, fused_parts
from subspace.errors import ShapeError, ValueRangeError
from subspace.text import listed, shown
from subspace.training.layer_shapes import kind_of, sizes

__all__ = ["rows_of"]

_OF_TRANSFORMERS = re.compile(r"transformers\.models\.(\w+)\.")
# names by which no layer is fused, in models whose code is not known here
_UNFUSED = frozenset(
    "q_proj k_proj v_proj o_proj out_proj query key value dense q k v o q_lin k_lin v_lin out_lin query_proj "
    "key_proj value_proj wq wk wv wo wi to_q to_k to_v gate_proj up_proj down_proj fc fc1 fc2 lin1 lin2 c_fc c_proj "
    "lm_head score classifier".split()
)


def rows_of(
    model: nn.Module, module: str, groups: Sequence[bool] | Sequence[str]
) -> tuple[tuple[bool, ...] | None, tuple[Ranges, ...]]:
    """Return the rows of the groups of a fused layer that are adapted, q before k before v.

    Parameters
    ----------
    model : that the layer is in; the code of transformers' models says how their rows are laid out
    module : name of the layer
    groups : names, such as ("q", "v"), or as loralib's ``enable_lora`` which of equal blocks are adapted

    Returns
    -------
    tuple of bool or None
        Which of equal blocks in their customary order are adapted, as loralib has it; None where they are not such
        blocks.
    tuple
        The ranges (start, stop) of rows of each adapted group.

    Raises
    ------
    ShapeError : the layer is no linear one, or its rows do not divide into the groups
    ValueRangeError : it is not fused, it is not known how, it lacks a group, or numbers do not fit its layout
    """
    layer = model.get_submodule(module)
    kind = kind_of(layer)
    if kind in ("embedding", "conv"):
        what = "an embedding" if kind == "embedding" else "a convolution"
        raise ShapeError(
            f"`groups` are for a fused linear layer, and this is {what}; leave it out of the targets"
        )
    names = [group for group in groups if isinstance(group, str)]
    parts = _parts(model, module, layer, 0 if names else len(groups))
    blocks = equal_blocks(sizes(layer)[0], tuple(parts))
    if names and (absent := [name for name in names if name not in parts]):
        raise ValueRangeError(
            f"The fused layer {shown(module)} has no group {absent[0]}: it has {listed(parts)}; change `groups`"
        )
    if not names and (len(groups) != len(parts) or parts != blocks):
        how = f"{len(parts)} equal blocks" if parts == blocks else "of unequal size or interleaved"
        raise ValueRangeError(
            f"The rows of {shown(module)} are not {len(groups)} equal blocks one after the other: they are those of "
            f"{listed(parts)}, {how}; give `groups` by name, such as {next(iter(parts))}"
        )
    on = tuple(name in names for name in parts) if names else tuple(map(bool, groups))
    return on if parts == blocks else None, tuple(
        rows for each, rows in zip(on, parts.values(), strict=True) if each
    )


def _parts(model: nn.Module, module: str, layer: nn.Module, count: int) -> Parts:
    """The parts of a layer; of a model whose code is not known here as many equal blocks as are given, 0 for none."""
    parent = model.get_submodule(module.rpartition(".")[0])
    last, known = module.rpartition(".")[2], _transformers_type(parent)
    if known is not None:
        parts = fused_parts(known, last, sizes(layer), _config(model, module))
        if parts is None:
            raise ValueRangeError(
                f"The module {shown(module)} of {type(parent).__name__} is not known to be a fused layer of q, k and "
                "v, of which `groups` are parts; leave `groups` out, or choose other `targets`"
            )
        return parts
    if last in _UNFUSED:
        raise ValueRangeError(
            f"The module {shown(module)} is not a fused layer, of which `groups` are parts; leave `groups` out"
        )
    if not count:
        raise ValueRangeError(
            f"It is not known which rows of {shown(module)} ({type(layer).__name__}) are q, k and v; if they are equal "
            "blocks in that order, give `groups` as 1,0,1"
        )
    parts = equal_blocks(sizes(layer)[0], tuple(str(n) for n in range(count)))
    if parts is None:
        raise ShapeError(
            f"The {sizes(layer)[0]} rows of a layer do not divide into {count} equal groups; give `groups` that fit "
            "the fused layer"
        )
    return parts


def _transformers_type(parent: nn.Module) -> str | None:
    """The type of model in transformers that the code of a module is of, None for other code."""
    found = (_OF_TRANSFORMERS.match(f"{kind.__module__}.") for kind in type(parent).__mro__)
    return next((match[1] for match in found if match), None)


def _config(model: nn.Module, module: str) -> object:
    """The configuration of the innermost module around a layer that has one with a number of heads."""
    while module:
        module = module.rpartition(".")[0]
        config = getattr(model.get_submodule(module), "config", None)
        if hasattr(config, "num_attention_heads"):
            return config
    return None
