"""The claims of section 7.2: what two adapters share (figures 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from subspace.flags import Flag
from subspace.results.comparison import Comparison
from subspace.study import rules
from subspace.study.claim import Claim, Numbers, middle, spread
from subspace.study.measurements import Measures
from subspace.study.trio import Trio, rows_of

__all__ = ["Contained", "HigherInQ", "SeedsAgree"]


def _dims(comparison: Comparison, side: str = "a", init: str = "kept") -> list[int]:
    """Shared dimensions where the test can find any; see `Flag.BLIND`."""
    rows = rows_of(comparison, side, init)
    return [row.shared_dim for row in rows if row.shared_dim is not None and _testable(row)]


def _testable(row: Any) -> bool:
    return Flag.BLIND not in row.flags


def _shared(dims: Sequence[int]) -> str:
    return spread(dims, ".3g") if dims else "cannot be tested, since d is too small"


def _d(measures: Measures) -> int:
    rows = rows_of(measures.here.ranks)
    return rows[0].d if rows else 0


def _per(n: int, d: int) -> str:
    return f"{n / d:.3f}" if d else "none"


def _pair(comparison: Comparison) -> dict[str, Any]:
    """What is known of two adapters, per module."""
    rows = rows_of(comparison)
    return {
        "phi_11": [row.phi_11 for row in rows],
        "same_input": [row.phi_control for row in rows if row.control_kind == "same_input"],
        "excess": [row.excess for row in rows if row.control_kind == "same_input"],
        "shared": _dims(comparison),
        "shared_start_removed": _dims(comparison, init="removed"),
        "shared_B": _dims(comparison, "b"),
        "phi_11_B": [row.phi_11 for row in rows_of(comparison, "b")],
        "phi_full": [row.phi_full for row in rows],
        "cosine": [row.cosine for row in rows if row.cosine is not None],
    }


def _says(numbers: Numbers) -> str:
    control = f", with the same input {middle(numbers['same_input'])}" if numbers["same_input"] else ""
    removed = numbers["shared_start_removed"]
    start = f", with the start removed {_shared(removed)}" if removed else ""
    return (
        f"phi(1, 1) {spread(numbers['phi_11'])}{control}; directions shared: in A {_shared(numbers['shared'])}{start}, "
        f"in B {_shared(numbers['shared_B'])}; cosine of delta_W {middle(numbers['cosine'])}"
    )


def _inputs(here: Numbers, scrambled: Numbers) -> str:
    """What of phi(1, 1) is the inputs, and what B and the cosine say of the rest."""
    if not (here["same_input"] and here["phi_11"] and scrambled["phi_11"]):
        return ""
    b, cosine = (
        f"{middle(here[name])} (scrambled text {middle(scrambled[name])})" for name in ("phi_11_B", "cosine")
    )
    return (
        f"Of phi(1, 1) = {middle(here['phi_11'])}, {middle(here['same_input'])} is the inputs alone: so much q of the "
        f"one shares with v of the other, and an adapter of the scrambled text has {middle(scrambled['phi_11'])}. What "
        f"was learned shows in B, phi(1, 1) {b}, and in the cosine of delta_W, {cosine}."
    )


def _mean_input(found: Numbers) -> str:
    """How much of the first direction is the mean input, and what is left of phi(1, 1) without it."""
    if not found["first"]:
        return ""
    return (
        f"The squared cosine of the first direction with the mean input of its module is {middle(found['first'])} at "
        f"r = 8 and {middle(found['second'])} at r = 64 (isotropic: {middle(found['isotropic'], '.3f')}); without the "
        f"mean in either A, phi(1, 1) goes from {middle(found['phi_11'])} to {middle(found['without'])}."
    )


class Contained(Claim):
    """Figure 3."""

    key = "contained"
    claim = (
        "The top direction of r = 8 is in r = 64, and little else is: they share a subspace of dimension 1."
    )
    where = "section 7.2, figure 3"
    paper = "phi(1, 1) above 0.5; 1 dimension shared"
    figure = "fig3"
    rule = rules.CONTAINED
    given = ("phi_11", "excess", "shared")

    def numbers(self, measures: Measures, trio: Trio) -> dict[str, Any]:
        """Return what r = 8 and r = 64 have in common, and, of the study's own, how much of it is the mean input."""
        mean = {"mean_input": measures.mean._asdict()} if trio is measures.here else {}
        return _pair(trio.ranks) | mean

    def says(self, numbers: Numbers) -> str:
        """Return the numbers in words."""
        return _says(numbers)

    def isotropic(self, measures: Measures, numbers: Numbers) -> str:
        """Return the closed form."""
        return f"phi(1, 1) {_per(1, _d(measures))}; 0 shared"

    def inputs(self, here: Numbers, scrambled: Numbers) -> str:
        """Return how much of phi(1, 1) is the inputs, and how much of the directions their mean."""
        return " ".join(filter(None, (_inputs(here, scrambled), _mean_input(here["mean_input"]))))

    def why(self, measures: Measures) -> str:
        """Return why the numbers may differ from the paper's."""
        return (
            f"With d = {_d(measures)}, and not 12288, the trained directions are a larger part of the space, so more "
            "of them stand out from the random start of A. The paper counts by eye; here every module is tested."
        )


class HigherInQ(Claim):
    """Figure 4, q against v."""

    key = "higher_in_q"
    claim = "delta_W_q has a higher intrinsic rank than delta_W_v: two seeds share more directions in q."
    where = "section 7.2, figure 4"
    paper = "by eye, no number"
    figure = "fig4"
    rule = rules.HIGHER_IN_Q
    given = ("q", "v", "q_start_removed", "v_start_removed")

    def numbers(self, measures: Measures, trio: Trio) -> dict[str, Any]:
        """Return the shared dimensions of q and of v; where no start is known, the same for "start removed"."""
        kept = _by_layer(measures, trio.seeds, "kept")
        removed = _by_layer(measures, trio.seeds, "removed")
        if not rows_of(trio.seeds, "a", "removed"):
            removed = kept
        return dict(zip(self.given, (*kept, *removed), strict=True))

    def says(self, numbers: Numbers) -> str:
        """Return the numbers in words, a reversal first."""
        q, v, q_removed, v_removed = (numbers[name] for name in self.given)
        kept = f"q {_shared(q)}, v {_shared(v)}"
        removed = f"q {_shared(q_removed)}, v {_shared(v_removed)}"
        if q and q_removed and (mean(q) - mean(v)) * (mean(q_removed) - mean(v_removed)) < 0:
            return f"The order reverses once the start is removed: {removed}. With the start kept: {kept}"
        return f"directions shared: {kept}; with the start removed {removed}"

    def isotropic(self, measures: Measures, numbers: Numbers) -> str:
        """Return the closed form."""
        return "0 shared in both"

    def why(self, measures: Measures) -> str:
        """Return why the numbers may differ from the paper's."""
        return (
            "Where the start of A is kept, as in the paper, a direction shows only once it outgrows that start, so the "
            "claim is about sizes as much as about ranks."
        )


def _by_layer(measures: Measures, comparison: Comparison, init: str) -> tuple[list[int], list[int]]:
    """Shared dimensions of q and of v, in the layers that have both."""
    found: dict[str, dict[str, int]] = {}
    for row in rows_of(comparison, "a", init):
        letter, layer = measures.kind(row.module)
        if row.shared_dim is not None and _testable(row):
            found.setdefault(layer, {})[letter] = row.shared_dim
    both = [layer for layer in found.values() if {"q", "v"} <= set(layer)]
    return [layer["q"] for layer in both], [layer["v"] for layer in both]


class SeedsAgree(Claim):
    """Figure 4, two seeds against two random matrices."""

    key = "seeds_agree"
    claim = (
        "Two runs of r = 64 from different seeds share leading directions; two random matrices share none."
    )
    where = "section 7.2, figure 4"
    paper = "by eye: bright corner against a dark panel"
    figure = "fig4"
    rule = rules.SEEDS_AGREE
    given = ("shared", "excess", "random")

    def numbers(self, measures: Measures, trio: Trio) -> dict[str, Any]:
        """Return what two adapters of r = 64 have in common, and two random ones."""
        return {**_pair(trio.seeds), "random": _dims(measures.controls["random"].seeds)}

    def says(self, numbers: Numbers) -> str:
        """Return the numbers in words."""
        return f"{_says(numbers)}; phi(64, 64) {middle(numbers['phi_full'])}"

    def isotropic(self, measures: Measures, numbers: Numbers) -> str:
        """Return the closed form."""
        d = _d(measures)
        return f"phi(1, 1) {_per(1, d)}, phi(64, 64) {_per(64, d)}; 0 shared"

    def inputs(self, here: Numbers, scrambled: Numbers) -> str:
        """Return how much of phi(1, 1) is the inputs."""
        return _inputs(here, scrambled)

    def why(self, measures: Measures) -> str:
        """Return why the numbers may differ from the paper's."""
        d = _d(measures)
        return (
            f"64 of {d} isotropic random directions agree to {_per(64, d)}, and to 0.005 in the paper's 12288: the "
            "dark part of the figure is lighter here for that reason alone."
        )
