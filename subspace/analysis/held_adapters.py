"""Loaded adapters of one base as a collection, every canonical form held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters.update import LowRankUpdate
from subspace.analysis.collection import Member
from subspace.geometry import lapack
from subspace.geometry.canonical import Canonical, canonical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters import Adapter, Update

__all__ = ["HeldAdapters"]


class HeldAdapters:
    """A `Collection` of a few adapters whose modules have the same names, such as those of one study.

    Parameters
    ----------
    adapters : what each is called -> the adapter
    """

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self._adapters = list(adapters.values())
        self._members = tuple(map(Member, adapters))
        self._modules = tuple(dict.fromkeys(module for each in self._adapters for module in each))
        self._forms: dict[tuple[str, int], Canonical] = {}

    @property
    def members(self) -> Sequence[Member]:
        """The adapters."""
        return self._members

    @property
    def modules(self) -> Sequence[str]:
        """The modules that any adapter has."""
        return self._modules

    def holders(self, module: str) -> Sequence[int]:
        """Return the numbers of the adapters that have a module, ascending."""
        return [n for n, each in enumerate(self._adapters) if module in each]

    def scales(self, module: str) -> NDArray[np.float64]:
        """Return the scale of the module in each of its holders; NaN where it is unknown."""
        values = [self._adapters[n][module].scale.value for n in self.holders(module)]
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        """Return the canonical form of a module in some of its holders."""
        for n in numbers:
            if (module, n) not in self._forms:
                self._forms[module, n] = _form(self._adapters[n][module])
        return [self._forms[module, n] for n in numbers]


def _form(update: Update) -> Canonical:
    if isinstance(update, LowRankUpdate):
        return canonical(update.B, update.A)
    U, S, Vh = lapack.svd(update.delta_W() / (update.scale.value or 1.0))
    k = int(np.count_nonzero(np.finfo(np.float64).eps * max(update.d_out, update.d_in) * S[:1].sum() < S))
    return Canonical(Vh[:k], U[:, :k].T, S[:k])
