"""The leading singular values of the base weight of every module, next to those of its update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from subspace.adapters import Adapter
from subspace.adapters.update import LowRankUpdate
from subspace.analysis.against_base import Against, Scope, Site, against_base
from subspace.flags import Flag
from subspace.results.base_spectrum import BaseSpectrum
from subspace.results.spectrum import ModuleSpectrum

__all__ = ["base_spectra", "with_base"]

_MOST, _MOST_OF_DENSE = 256, 64  # singular values of W that are asked for
_MORE = 8  # so that the last of them has settled


def base_spectra(
    base: Any, adapter: Adapter, scope: Scope, progress: Callable[[int, int], None] | None
) -> Against[BaseSpectrum]:
    """Leading singular values of the base weight of every module in the scope; errors as `against_base`."""
    return against_base(
        base, adapter, _measured, without_numbers=_without_numbers, scope=scope, progress=progress
    )


def _measured(site: Site) -> tuple[BaseSpectrum]:
    most = _MOST if isinstance(site.update, LowRankUpdate) else _MOST_OF_DENSE
    k = min(site.update.r, most, *site.weight.shape)
    found = site.leading(k + _MORE)
    return (BaseSpectrum(site.update.module, site.weight.key, found.S[:k], found.norm),)


def _without_numbers(site: Site) -> tuple[BaseSpectrum]:
    return (BaseSpectrum(site.update.module, site.weight.key, np.zeros(0), None),)


def with_base(row: ModuleSpectrum, found: BaseSpectrum | None) -> ModuleSpectrum:
    """The row of a module with what it is against its W, None where the base does not have it."""
    if found is None:
        return replace(row, flags=(*row.flags, Flag.NOT_IN_BASE))
    row = replace(row, base_key=found.key)
    if found.norm is None:
        # where the update itself has no numbers, that is flagged already
        return row if Flag.NOT_FINITE in row.flags else replace(row, flags=(*row.flags, Flag.BASE_NOT_FINITE))
    row = replace(row, sigma_W=found.S)
    if found.norm == 0:
        return replace(row, flags=(*row.flags, Flag.BASE_ZERO))
    if row.norm_delta_W is None or not len(row.sigma):
        return row
    index = min(len(row.sigma), len(found.S))
    return replace(
        row,
        norm_over_W=row.norm_delta_W / found.norm,
        sigma_over_W=float(row.sigma[0] / found.S[0]),
        above_W=int(np.count_nonzero(row.sigma > found.S[index - 1])),
        W_index=index,
    )
