"""Intruder dimensions that each checkpoint of a run makes in one base weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.update import LowRankUpdate
from subspace.analysis.frames import is_untrained
from subspace.analysis.intruded_module import asked_for, rows_of
from subspace.analysis.one_module import Site
from subspace.geometry import factored, lapack
from subspace.geometry.intruder_counts import intruder_counts

if TYPE_CHECKING:
    from subspace.adapters import Adapter, BaseWeights, Update
    from subspace.adapters.base.weight import BaseWeight
    from subspace.geometry.lapack import Floats

__all__ = ["Intruding", "step_intruders"]

_DENSE = 1024  # smaller side up to which W's decomposition takes about a second


class Intruding(NamedTuple):
    """What counts as an intruder: base weights, how many leading directions, and the threshold of the cosine."""

    base: BaseWeights
    k: int
    epsilon: float


def step_intruders(
    intruding: Intruding, updates: Sequence[Update | None], adapter: Adapter
) -> tuple[int | None, ...]:
    """Number of intruders at every checkpoint, on the left side, as `intruders` counts them; () without a weight.

    Notes
    -----
    Up to a smaller side of 1024 W is decomposed once for all checkpoints; above, each takes its own pass.
    """
    last = updates[-1]
    assert last is not None
    weight = intruding.base.weight(last)
    if weight is None:
        return ()
    asked = [n for n, update in enumerate(updates) if update is not None and update.scale.value is not None]
    trained = [n for n in asked if not is_untrained(updates[n])]  # type: ignore[arg-type]
    counts = _exact(weight, [updates[n] for n in trained], intruding)
    if counts is None:
        counts = [_one(weight, updates[n], intruding, adapter) for n in trained]
    intruding.base.tensors.release()
    found: dict[int, int | None] = dict.fromkeys(asked, 0)
    found |= dict(zip(trained, counts, strict=True))
    return tuple(found.get(n) for n in range(len(updates)))


def _exact(
    weight: BaseWeight, updates: Sequence[Update | None], intruding: Intruding
) -> Sequence[int | None] | None:
    """By one decomposition; None where that is too large, or an update has no factors."""
    if min(weight.shape) > _DENSE or not all(isinstance(update, LowRankUpdate) for update in updates):
        return None
    W = lapack.as_float64(weight.matrix())
    if not W.any():
        return [None] * len(updates)
    factors = (_factors(update, transposed=weight.transposed) for update in updates)
    side = "right" if weight.transposed else "left"
    return intruder_counts(W, factors, k=intruding.k, epsilon=intruding.epsilon, side=side)


def _factors(update: Update | None, *, transposed: bool) -> tuple[Floats, Floats]:
    """The update as two factors of like size, in the orientation of the file of W."""
    assert isinstance(update, LowRankUpdate) and update.scale.value is not None
    U, S, Vh = factored.svd(update.B, update.A)
    B, A = U * (update.scale.value * S), Vh
    return (A.T, B.T) if transposed else (B, A)


def _one(weight: BaseWeight, update: Update | None, intruding: Intruding, adapter: Adapter) -> int | None:
    assert update is not None
    asked = asked_for(k=intruding.k, epsilon=intruding.epsilon, side="left", exact=None, up_to=0.0)
    return rows_of(Site(weight, update, adapter), asked=asked)[0].intruders
