"""The pair against reference adapters: is it more alike than adapters of other tasks on the same base?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import match_modules
from subspace.adapters.place import place
from subspace.analysis import naming_notes
from subspace.analysis.effects import Effect, whole_update
from subspace.analysis.module_rows import ModulePairs
from subspace.errors import InconclusiveError
from subspace.geometry.permutation import reference_p
from subspace.results.comparison_summary import ReferenceTest

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.analysis.damage import Damage
    from subspace.analysis.resolve import Loading
    from subspace.geometry.lapack import Floats

__all__ = ["MEASURES", "pairs_among", "reference_tests", "similarities"]

MEASURES = ("cosine", "phi_11_a", "phi_11_b")


def pairs_among(controls: int) -> int:
    """How many pairs two adapters and so many reference adapters make; 0 without any.

    Examples
    --------
    >>> pairs_among(0), pairs_among(2)
    (0, 6)
    """
    return (controls + 2) * (controls + 1) // 2 if controls else 0


def reference_tests(
    first: Adapter,
    second: Adapter,
    controls: Sequence[Any],
    loading: Loading,
    *,
    step: Callable[[], None] = lambda: None,
    damage: Damage | None = None,
) -> tuple[ReferenceTest, ...]:
    """Every measure of the pair against the same of the reference adapters; none where it is not defined for all pairs.

    Parameters
    ----------
    controls : the reference adapters, as `load_adapter` takes them
    loading : how they are read
    step : called after each pair
    damage : takes in the modules that are left out because a number is not finite

    Raises
    ------
    InconclusiveError : a reference adapter has no module in common with one of the others
    """
    adapters = [first, second, *(loading.adapter(source) for source in controls)]
    n = len(adapters)
    S = {measure: np.full((n, n), np.nan) for measure in MEASURES}
    for k, m in combinations(range(n), 2):
        for measure, value in similarities(adapters[k], adapters[m], damage).items():
            S[measure][k, m] = S[measure][m, k] = value
        step()
    return tuple(_tests(S))


def similarities(first: Adapter, second: Adapter, damage: Damage | None = None) -> dict[str, float]:
    """The measures of two adapters over all their modules; NaN where one is not defined.

    Parameters
    ----------
    damage : takes in the modules that are left out because a number is not finite

    Raises
    ------
    InconclusiveError : they have no module in common
    """
    matched = naming_notes.settled(match_modules(list(first), list(second)), first, second)
    if not matched.pairs:
        raise InconclusiveError(
            f"No module in common between {place(first.path)} and {place(second.path)}: a reference adapter has to "
            "adapt the same layers; leave it out of `control`"
        )
    pairs = ModulePairs(first, naming_notes.flagged(second, matched), ("a", "b"))
    effects: list[Effect | None] = []
    leading: dict[str, list[float]] = {"a": [], "b": []}
    for names in matched.pairs:
        measured = pairs.measured(*names)
        effects.append(measured.effect)
        if damage is not None:
            damage.add(names[0], measured.damaged)
        for row in measured.rows:
            if row.phi.size:
                leading[row.side].append(row.phi_11)
        first.release()
        second.release()
    whole = whole_update(effects)
    found = {"cosine": np.nan if whole is None else whole.cosine}
    return found | {
        f"phi_11_{side}": median(values) if values else np.nan for side, values in leading.items()
    }


def _tests(S: dict[str, Floats]) -> Iterator[ReferenceTest]:
    for measure, M in S.items():
        others = ~np.eye(len(M), dtype=bool)
        if np.isnan(M[others]).any():
            continue
        found = reference_p(M)
        yield ReferenceTest(
            measure=measure,
            value=float(M[0, 1]),
            first_with_controls=tuple(M[0, 2:].tolist()),
            second_with_controls=tuple(M[1, 2:].tolist()),
            p=max(found.first, found.second),
            p_floor=found.floor,
            p_permuted=found.pairs,
            p_permuted_floor=found.floor_pairs,
        )
