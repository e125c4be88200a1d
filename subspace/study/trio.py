"""Three adapters in the roles of the paper's, and everything that is measured of them to test a claim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subspace.results.amplification import Amplification, ModuleAmplification
    from subspace.results.comparison import Comparison, ModuleComparison

__all__ = ["Trio", "ranked", "rows_of"]


@dataclass(frozen=True, eq=False)
class Trio:
    """A low rank, r = 64 and r = 64 of another seed: the study's own adapters, or a control's in their place.

    Attributes
    ----------
    ranks : r = 8 against r = 64, sides A and B, with the starts kept and, where they are known, removed (figure 3)
    seeds : r = 64 against the other r = 64, in the same ways (figure 4)
    low_rank : rank of the adapter of `low` and `against_base`
    low, high : amplification of the low rank and of r = 64 (table 7)
    against_base : W against the low rank (figure 8)
    """

    ranks: Comparison
    seeds: Comparison
    low_rank: int
    low: Amplification
    high: Amplification
    against_base: Comparison


def rows_of(comparison: Comparison, side: str = "a", init: str = "kept") -> list[ModuleComparison]:
    """Return the rows of one side that have a score."""
    return [row for row in comparison.modules if (row.side, row.init) == (side, init) and row.phi.size]


def ranked(amplified: Amplification) -> Iterator[tuple[ModuleAmplification, Any]]:
    """Yield the modules that have a factor, each with its row at the adapter's own rank."""
    for module in amplified.modules:
        if module.ranks:
            yield module, module.ranks[-1]
