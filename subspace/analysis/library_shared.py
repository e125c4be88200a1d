"""The subspace that the adapters of a library share, in some of its modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry.shared_subspace import SharedSubspace, shared_subspace
from subspace.results.library import SharedDirections

if TYPE_CHECKING:
    from subspace.analysis.collection import Collection
    from subspace.geometry.canonical import Canonical

__all__ = ["shared_directions"]

_SIDES = ("right", "left")
_FEWEST = 3  # adapters that a shared subspace is asked of
_DRAWS = 5
_BUDGET = 2e11  # multiplications in all: some ten seconds of one core


def shared_directions(collection: Collection, *, most: int) -> tuple[list[SharedDirections], int]:
    """How concentrated the input and output sides of delta_W are, in modules evenly chosen; and how many there are.

    Parameters
    ----------
    most : number of modules; fewer where they would take more than some seconds
    """
    modules = [module for module in collection.modules if len(collection.holders(module)) >= _FEWEST]
    found: list[SharedDirections] = []
    spent = 0.0
    for module in _spread(modules, most):
        forms = [form for form in collection.forms(module, collection.holders(module)) if form.k]
        cost = _cost(forms)
        if len(forms) < _FEWEST or spent + cost > _BUDGET:
            continue
        spent += cost
        found += _of_module(module, forms)
    return found, len(modules)


def _spread(modules: Sequence[str], most: int) -> list[str]:
    """At most so many modules, evenly spaced."""
    if len(modules) <= most:
        return list(modules)
    return [modules[n] for n in np.linspace(0, len(modules) - 1, most).astype(int)]


def _cost(forms: Sequence[Canonical]) -> float:
    total = sum(form.k for form in forms)
    dims = [form.right.shape[1] for form in forms[:1]] + [form.left.shape[1] for form in forms[:1]]
    return float(sum(2.0 * (1 + _DRAWS) * total * d * min(total, d) for d in dims))


def _of_module(module: str, forms: Sequence[Canonical]) -> list[SharedDirections]:
    spans = {
        "right": [form.right[: form.k] for form in forms],
        "left": [form.left[: form.k] for form in forms],
    }
    strengths = [form.S for form in forms]
    found = []
    for side, other in (_SIDES, _SIDES[::-1]):
        whole = shared_subspace(spans[side], strengths, draws=_DRAWS)
        rest = shared_subspace(spans[side], strengths, others=spans[other], draws=_DRAWS)
        found += [_row(module, side, len(forms), whole, False), _row(module, side, len(forms), rest, True)]
    return found


def _row(module: str, side: str, adapters: int, found: SharedSubspace, removed: bool) -> SharedDirections:
    return SharedDirections(
        module=module,
        side=side,
        adapters=adapters,
        mean_removed=removed,
        d=found.d,
        total=found.total,
        directions=found.directions,
        directions_random=found.directions_random,
        top=found.top,
        share=found.share,
        share_random=found.share_random,
        residual=found.residual,
        narrow=found.narrow,
    )
