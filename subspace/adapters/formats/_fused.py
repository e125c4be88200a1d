"""One stored pair that is several updates: a fused q, k, v layer, split into its groups.

loralib's ``MergedLinear`` (loralib/layers.py, 0.1.2) keeps ``A`` as (r * g, d_in) and ``B`` as (size * g, r) for g
enabled groups, multiplied by a grouped convolution: group n is its rows of ``B`` times its rows of ``A``.
Read as one pair, its rank and directions would be a mixture of the groups.
"""

from __future__ import annotations

from collections.abc import Sequence

from subspace.adapters.format import Source
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["is_fused", "is_group", "split"]

_QKV = ("q", "k", "v")


def is_fused(A: Factor, B: Factor) -> bool:
    """Whether the shapes are those of several groups stored as one pair."""
    rank = B.shape[1]
    groups, rest = divmod(A.shape[0], rank)
    return groups > 1 and rest == 0 and B.shape[0] % groups == 0


def is_group(A: Factor, B: Factor, enabled: Sequence[bool] | None) -> bool:
    """Whether a pair is the only adapted group of a fused layer, which its shapes alone do not tell."""
    return enabled is not None and len(enabled) > 1 and sum(enabled) == 1 and A.shape[0] == B.shape[1]


def split(
    A: Factor, B: Factor, module: str, *, scale: Scale, enabled: Sequence[bool] | None, source: Source
) -> list[LowRankUpdate]:
    """The updates of a fused pair, one per enabled group, named ``module[q]`` or ``module[0]``.

    Parameters
    ----------
    enabled : which groups of the layer are adapted, as loralib's ``enable_lora``; None if the file does not say

    Raises
    ------
    FormatError : `enabled` names another number of groups than the shapes have
    ShapeError : the shapes are not those of whole groups
    """
    r = B.shape[1]
    groups, rest = divmod(A.shape[0], r)
    if groups == 0 or rest or B.shape[0] % groups:
        raise ShapeError(
            f"A (r * groups, d_in) and B (size * groups, r) must have whole groups: got A {list(A.shape)} and "
            f"B {list(B.shape)}, in module {shown(module)} of {source.path}"
        )
    size = B.shape[0] // groups
    if enabled is not None and sum(enabled) != groups:
        raise FormatError(
            f"enable_lora must name as many groups as the factors have: got {sum(enabled)} and {groups}, "
            f"in module {shown(module)} of {source.path}"
        )
    places = [n for n, on in enumerate(enabled) if on] if enabled is not None else [None] * groups
    updates = []
    for n, place in enumerate(places):
        updates.append(
            LowRankUpdate(
                module=f"{module}[{_label(n, place, enabled)}]",
                A_factor=A.rows(n * r, (n + 1) * r),
                B_factor=B.rows(n * size, (n + 1) * size),
                scale=scale,
                rows=None if place is None else (place * size, (place + 1) * size),
                flags=(Flag.FUSED,) if place is not None else (Flag.FUSED, Flag.GROUP_UNKNOWN),
            )
        )
    return updates


def _label(n: int, place: int | None, enabled: Sequence[bool] | None) -> str:
    if place is not None and enabled is not None and len(enabled) == len(_QKV):
        return _QKV[place]
    return str(n if place is None else place)
