"""The result of `intruders`: the leading directions of W + delta_W that W does not have, per module and side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from subspace.flags import Flag
from subspace.results.columns import column, row
from subspace.results.result import Result, Row
from subspace.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["SWEEP", "Intruders", "ModuleIntruders"]

SWEEP = tuple(n / 10 for n in range(1, 10))  # thresholds of the sweep


@row
class ModuleIntruders(Row):
    """The leading singular directions of one merged weight, on one side."""

    module: str = column("Name of the module")
    side: str = column(
        'Singular vectors that are compared: "left", of outputs, or "right", of inputs', usual="left"
    )
    d_out: int = column("Rows of W", place="record")
    d_in: int = column("Columns of W", place="record")
    route: str = column(
        '"exact": from W\'s singular value decomposition; "fast": bounds from Krylov spaces of W',
        usual="exact",
    )
    scale: float | None = column(
        "Factor between B A and delta_W; None where the file does not say it", place="record"
    )
    sigma_delta_W: float | None = column(
        "Largest singular value of delta_W, the scale included", label="σ1 of ΔW"
    )
    sigma: tuple[float, ...] = column(
        "Singular values of W + delta_W of the k leading directions", place="record", default=()
    )
    max_cos: tuple[float, ...] = column(
        "Largest |cos| of each of them with any singular vector of W; on the fast route an upper bound",
        range="[0, 1]",
        place="record",
        default=(),
    )
    max_cos_least: tuple[float, ...] = column(
        "Lower bound of the same, equal to max_cos where that is known",
        range="[0, 1]",
        place="record",
        default=(),
    )
    match: tuple[int | None, ...] = column(
        "Number of that singular vector of W, from 1 for the leading one; None where it is unknown",
        place="record",
        default=(),
    )
    match_sigma: tuple[float, ...] = column("Its singular value", place="record", default=())
    captured: tuple[float, ...] = column(
        "Share of each direction inside the span of W's k leading singular vectors of that side",
        range="[0, 1]",
        place="record",
        default=(),
    )
    intruders: int | None = column(
        "How many of the k leading directions are intruders: max_cos below epsilon; None where there is no number"
    )
    first_intruder: int | None = column(
        "Number of the leading intruder among the directions of W + delta_W, from 1; None without one",
        label="first intruder",
        drop=1,
        default=None,
    )
    lowest_cos: float | None = column(
        "Smallest max_cos of the k leading directions",
        range="[0, 1]",
        label="least max cos",
        drop=2,
        default=None,
    )
    chance_max_cos: float | None = column(
        "About the largest |cos| of an isotropic random direction with n orthonormal ones in d dimensions, "
        "sqrt(2 ln n / d)",
        range="[0, 1]",
        label="isotropic max cos",
        drop=3,
    )
    s_star: float | None = column(
        "Multiple of the adapter's scale at which the first intruder appears, measured within 1 %; None where none "
        "appears up to the largest multiple that was tried",
        label="s*",
    )
    s_star_law: float | None = column(
        "The same by the law for directions independent of W: theta_bar / sigma_delta_W, the edge of W's bulk as in "
        "`edge`",
        label="s* by law",
    )
    s_star_law_first: float | None = column(
        "The same with W's largest singular value as the edge", place="record", default=None
    )
    edge: str = column(
        "Which singular value of W the law takes as the edge of the bulk", place="record", default=""
    )
    base_key: str = column("Name of the base weight in its file", place="record")
    orientation: str = column("How the orientation of the base weight was decided", place="record")
    mitigated_r: int | None = column(
        "Rank of the written factors, in which the top intruder is scaled",
        label="written r",
        place="record",
        absent=lambda row: row.mitigated_r is None,
        default=None,
    )
    mitigated_error: float | None = column(
        "Relative error of the written delta_W by the limit of its rank, rounding apart",
        place="record",
        absent=lambda row: row.mitigated_r is None,
        default=None,
    )
    top: tuple[NDArray[np.float64], float, NDArray[np.float64]] | None = field(default=None, repr=False)
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())

    def count(self, epsilon: float, k: int | None = None) -> int:
        """How many of the first `k` directions have a max_cos below `epsilon`."""
        return sum(cos < epsilon for cos in self.max_cos[:k])


@dataclass(frozen=True, eq=False, repr=False)
class Intruders(Result[ModuleIntruders]):
    """Intruder dimensions of every module of an adapter that its base has.

    Attributes
    ----------
    base, delta : paths of the base weights and of the adapter
    epsilon : a direction is an intruder where its max_cos is below
    k : how many leading directions of W + delta_W are looked at
    up_to : largest multiple of the adapter's scale at which the first intruder was looked for; 0 where it was not
    modules : one row per module and side
    missing : modules of the adapter that the base does not have
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.intruders/1"
    ROW: ClassVar[type[Row]] = ModuleIntruders
    KEYS: ClassVar[tuple[str, ...]] = ("module", "side")

    base: str
    delta: str
    epsilon: float
    k: int
    up_to: float
    modules: tuple[ModuleIntruders, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def convention(self) -> str:
        """What is compared with what, in one sentence."""
        return (
            f"An intruder is one of the {self.k} leading singular vectors of W + delta_W (not of delta_W) whose "
            f"largest |cos| with any singular vector of W of the same side is below {self.epsilon:g}; vectors whose "
            "singular values agree to 1e-6 count as one span, and those below 1e-6 of the largest do not count"
        )

    def sweep(self) -> dict[str, Any]:
        """Return how many intruders all rows have at other thresholds, and among fewer directions.

        Returns
        -------
        dict
            "epsilon" and "counts" at each; "k" and "counts_k", at the threshold of the result; the same counts of each
            side in "sides".
        """
        rows = [each for each in self.modules if each.intruders is not None]
        by_side = {
            side: self._counts([each for each in rows if each.side == side])
            for side in dict.fromkeys(each.side for each in rows)
        }
        return {
            "epsilon": list(SWEEP),
            "k": list(range(1, self.k + 1)),
            **self._counts(rows),
            "sides": by_side,
        }

    def _counts(self, rows: Sequence[ModuleIntruders]) -> dict[str, list[int]]:
        return {
            "counts": [sum(each.count(epsilon) for each in rows) for epsilon in SWEEP],
            "counts_k": [sum(each.count(self.epsilon, k) for each in rows) for k in range(1, self.k + 1)],
        }

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.intruders/1``."""
        return {**super().document(), "convention": self.convention, "sweep": self.sweep()}

    def headline(self) -> str:
        """Return how many of the leading directions are intruders, and from which scale on there are any."""
        return " ".join(self.facts())

    def _counted(self) -> str:
        rows = [each for each in self.modules if each.intruders is not None]
        if not rows:
            return "No module has a count of intruders."
        found = sum(each.intruders or 0 for each in rows)
        having = len({each.module for each in rows if each.intruders})
        modules = counted(len({each.module for each in rows}), "module")
        of = sum(len(each.max_cos) for each in rows)
        sides = " and ".join(dict.fromkeys(each.side for each in rows))
        chance = np.median([each.chance_max_cos for each in rows if each.chance_max_cos is not None])
        new = f"of the {of} leading {sides} singular directions of W + delta_W"
        if not found:
            return (
                f"None {new} is an intruder, in {modules}: each has a |cos| of {self.epsilon:g} or more to a singular "
                f"vector of W (isotropic directions reach about {chance:.2g})."
            )
        return (
            f"{found} {new} {_are(found)} new to W, in {having} of {modules}: intruders, with no |cos| of "
            f"{self.epsilon:g} or more to any singular vector of W (isotropic directions reach about {chance:.2g})."
        )

    def facts(self) -> tuple[str, ...]:
        """Return the sentences of the headline, each of which stands alone."""
        return (self._counted(), *filter(None, [self._scale_fact()]))

    def _scale_fact(self) -> str | None:
        rows = [each for each in self.modules if each.sigma_delta_W and each.intruders is not None]
        if not self.up_to or not rows:
            return None
        noun = "module" if len({each.side for each in rows}) == 1 else "row"
        found = [each.s_star for each in rows if each.s_star is not None]
        small = [each for each in rows if each.s_star is None]
        facts = []
        if found:
            laws = [
                each.s_star_law for each in rows if each.s_star is not None and each.s_star_law is not None
            ]
            law = f" (by the law for independent directions {np.median(laws):.3g})" if laws else ""
            what = f"in the median {noun} " if len(found) > 1 else ""
            facts.append(
                f"The first intruder appears {what}at {np.median(found):.3g} times the adapter's scale{law}"
            )
        if small:
            reach = [each.s_star_law for each in small if each.s_star_law is not None]
            law = f"; by the law it takes {np.median(reach):.3g} times" if reach else ""
            facts.append(
                f"{len(small)} of {counted(len(rows), noun)} {_are(len(small))} too small to intrude: none "
                f"appears up to {self.up_to:g} times the scale{law}"
            )
        return "; ".join(facts) + "."

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw which leading directions are intruders, and the scale of the first next to the law's."""
        from subspace.plots import intruder_map

        return intruder_map(self, ax=ax)


def _are(n: int) -> str:
    return "is" if n < 2 else "are"
