"""How much of the directions of every delta_W is in the leading right singular vectors of its base weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from subspace.analysis.against_base import Against, Scope, Site, against_base
from subspace.analysis.explained_module import directions_of
from subspace.analysis.resolve import Loading
from subspace.flags import Flag
from subspace.geometry.direction_shares import span_shares
from subspace.results.base_shares import BaseShares
from subspace.results.explanation import DirectionExplanation

__all__ = ["base_shares", "with_base"]


def base_shares(
    base: Any,
    source: Any,
    loading: Loading,
    scope: Scope,
    sizes: tuple[int, int],
    progress: Callable[[int, int], None] | None,
) -> Against[BaseShares]:
    """The shares of the first sizes[0] directions of every module in sizes[1] of W; errors as `against_base`."""
    return against_base(
        base,
        source,
        partial(_measured, k=sizes[0], m=sizes[1]),
        without_numbers=_without_numbers,
        loading=loading,
        scope=scope,
        progress=progress,
    )


def _measured(site: Site, *, k: int, m: int) -> tuple[BaseShares]:
    found = directions_of(site.update, k)
    if found is None:
        return (BaseShares(site.update.module),)
    own = site.leading(min(m, *site.weight.shape))
    if own.norm == 0:
        return (BaseShares(site.update.module, flags=(Flag.BASE_ZERO,)),)
    Q = own.U if site.weight.transposed else own.V
    shares = span_shares(found.V[:, : found.k], Q)
    control = float(span_shares(found.controls(), Q).mean())
    return (BaseShares(site.update.module, tuple(map(float, shares)), control, Q.shape[1]),)


def _without_numbers(site: Site) -> tuple[BaseShares]:
    return (BaseShares(site.update.module, flags=(Flag.BASE_NOT_FINITE,)),)


def with_base(rows: Sequence[DirectionExplanation], found: BaseShares | None) -> list[DirectionExplanation]:
    """The rows of a module with their shares in W; None where the base does not have it."""
    if found is None:
        return [replace(row, flags=(*row.flags, Flag.NOT_IN_BASE)) for row in rows]
    flags = tuple(flag for flag in found.flags if not (flag is Flag.BASE_NOT_FINITE and rows[0].k == 0))
    if len(found.shares) < len(rows) or not found.shares:
        return [replace(row, flags=(*row.flags, *flags)) for row in rows]
    return [
        replace(
            row,
            W_leading=found.m,
            W_share=share,
            W_isotropic=found.m / row.d_in,
            W_control=found.control,
            flags=(*row.flags, *flags),
        )
        for row, share in zip(rows, found.shares, strict=True)
    ]
