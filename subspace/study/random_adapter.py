"""Adapters of random numbers, of the shapes and sizes of trained ones: what a claim makes of noise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters.update import Factor

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.adapters.update import LowRankUpdate

__all__ = ["random_adapter"]


def random_adapter(adapter: Adapter, *, seed: int) -> Adapter:
    """Return an adapter with Gaussian A and B; in every module the norms of A and of delta_W are those of `adapter`.

    References
    ----------
    Hu et al., arXiv 2106.09685v2, figure 4, right.
    """
    rng = np.random.default_rng(seed)
    updates = {module: _random(update, rng) for module, update in adapter.items()}  # type: ignore[arg-type]
    return replace(adapter, path=f"random numbers, seed {seed}", updates=updates, tensors=None)


def _random(update: LowRankUpdate, rng: np.random.Generator) -> LowRankUpdate:
    A, B = (rng.standard_normal(factor.shape) for factor in (update.A_factor, update.B_factor))
    A *= np.linalg.norm(update.A) / np.linalg.norm(A)
    drawn = replace(update, A_factor=Factor.of(A), B_factor=Factor.of(B))
    B = B * (np.linalg.norm(update.delta_W()) / np.linalg.norm(drawn.delta_W()))
    return replace(drawn, B_factor=Factor.of(B))
