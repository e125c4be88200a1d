"""A pair of tensors that holds the updates of a fused q, k, v layer, split into its groups.

loralib's ``MergedLinear`` (loralib/layers.py, 0.1.2) keeps ``A`` as (r * g, d_in) and ``B`` as (size * g, r) for g
enabled groups, multiplied by a grouped convolution: group n is its rows of ``B`` times its rows of ``A``.
Read as one pair, its rank and directions would mix the groups.
"""

from __future__ import annotations

from collections.abc import Sequence

from subspace.adapters.format import Source
from subspace.adapters.update import Factor, LowRankUpdate, Scale
from subspace.errors import FormatError, ShapeError
from subspace.flags import Flag

__all__ = ["is_fused", "is_group", "split"]

_QKV = ("q", "k", "v")


def is_fused(A: Factor, B: Factor) -> bool:
    """Whether the shapes are of several groups in one pair."""
    rank = B.shape[1]
    groups, rest = divmod(A.shape[0], rank)
    return groups > 1 and rest == 0 and B.shape[0] % groups == 0


def is_group(A: Factor, B: Factor, enabled: Sequence[bool] | None) -> bool:
    """Whether a pair is the only adapted group of a fused layer, which its shapes alone do not say."""
    return enabled is not None and len(enabled) > 1 and sum(enabled) == 1 and A.shape[0] == B.shape[1]


def split(
    A: Factor, B: Factor, module: str, *, scale: Scale, enabled: Sequence[bool] | None, source: Source
) -> list[LowRankUpdate]:
    """The update of each adapted group, named ``module[q]``, or ``module[0]`` where it is not known which it is.

    Parameters
    ----------
    enabled : which groups of the layer are adapted, as ``enable_lora`` of loralib; None if the file does not say

    Raises
    ------
    FormatError : `enabled` has another number of groups than the factors
    ShapeError : the shapes do not divide into groups
    """
    r, groups = B.shape[1], _groups(A, B, module, enabled, source)
    size = B.shape[0] // groups
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


def _groups(A: Factor, B: Factor, module: str, enabled: Sequence[bool] | None, source: Source) -> int:
    """Number of groups, by the shapes."""
    r = B.shape[1]
    groups, rest = divmod(A.shape[0], r)
    if groups == 0 or rest or B.shape[0] % groups:
        raise ShapeError(
            f"The factors of a fused layer do not divide into groups: A (r * groups, d_in) is {list(A.shape)} and "
            f"B (size * groups, r) is {list(B.shape)}, in {source.place(module)}"
        )
    if enabled is not None and sum(enabled) != groups:
        raise FormatError(
            f"Another number of adapted groups in `enable_lora` than in the factors: {sum(enabled)} and {groups}, in "
            f"{source.place(module)}; give the `enable_lora` that the layer was trained with"
        )
    return groups


def _label(n: int, place: int | None, enabled: Sequence[bool] | None) -> str:
    if place is not None and enabled is not None and len(enabled) == len(_QKV):
        return _QKV[place]
    return str(n if place is None else place)
