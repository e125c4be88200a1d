"""Which layers are adapted where a user names none: the projections of attention to queries and values."""

from __future__ import annotations

from torch import nn

from subspace.errors import ValueRangeError
from subspace.training.layer_shapes import kind_of
from subspace.training.module_patterns import adaptable, last_parts, targets_in

__all__ = ["default_targets"]

_CUSTOMARY = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q", "v"),
    ("q_lin", "v_lin"),
    ("query_proj", "value_proj"),
    ("c_attn",),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
    ("self.in_proj",),
)


def default_targets(model: nn.Module) -> tuple[str, ...]:
    """Return patterns of the query and value projections of a model, or of its fused ones.

    Raises
    ------
    ValueRangeError : the model has layers of none of the customary names; those that it has are listed

    References
    ----------
    Hu et al., arXiv 2106.09685v2, section 7.1, where W_q and W_v share the budget best.

    Examples
    --------
    >>> from subspace.training import embedded
    >>> default_targets(embedded.load())
    ('q_proj', 'v_proj')
    """
    for patterns in _CUSTOMARY:
        if all(_linear(model, pattern) for pattern in patterns):
            return patterns
    tried = ", ".join("+".join(patterns) for patterns in _CUSTOMARY)
    raise ValueRangeError(
        f"No query and value layers of a customary name ({tried}): the model has {last_parts(adaptable(model))}; name "
        "the layers to adapt with `targets`"
    )


def _linear(model: nn.Module, pattern: str) -> bool:
    try:
        names = targets_in(model, [pattern])
    except ValueRangeError:
        return False
    return all(kind_of(model.get_submodule(name)) in ("linear", "conv1d") for name in names)
