"""The claims of section 7.3 and appendix H.3: what delta_W has to do with W (table 7, figure 8)."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from subspace.study import rules
from subspace.study.claim import Claim, Numbers, middle, spread
from subspace.study.measurements import Measures
from subspace.study.trio import Trio, ranked, rows_of

__all__ = ["Amplifies", "Correlated", "NotEmphasised", "NotTheTop"]


def _pair(trio: Trio, value: Callable[[Any, Any], Any]) -> tuple[list[Any], list[Any]]:
    """A value per module of the low rank and of r = 64, in the modules that have both."""
    low, high = (
        {module.module: value(module, rank) for module, rank in ranked(amplified)}
        for amplified in (trio.low, trio.high)
    )
    both = [m for m in low if low[m] is not None and high.get(m) is not None]
    return [low[m] for m in both], [high[m] for m in both]


def _named(low: str, high: str, pair: tuple[list[Any], list[Any]]) -> dict[str, list[Any]]:
    return {low: pair[0], high: pair[1]}


def _over_random(trio: Trio) -> dict[str, list[Any]]:
    return _named("over_random_low", "over_random_64", _pair(trio, lambda module, rank: rank.over_random))


def _z(module: Any, rank: Any) -> float | None:
    return (rank.proj_delta_W - rank.proj_random) / rank.proj_random_sd if rank.proj_random_sd > 0 else None


def _random_factor(module: Any, rank: Any) -> float | None:
    return module.norm_delta_W / rank.proj_random if rank.proj_random else None


class Correlated(Claim):
    """Table 7, delta_W's directions against random ones."""

    key = "correlated"
    claim = "delta_W has a stronger correlation with W than a random matrix has."
    where = "section 7.3, table 7"
    paper = "projection over random: 0.32 / 0.02 = 16 at r = 4, 1.90 / 0.33 = 5.8 at r = 64"
    figure = "table7"
    rule = rules.CORRELATED
    given = ("z_low", "z_64")

    def numbers(self, measures: Measures, trio: Trio) -> dict[str, Any]:
        """Return the projections over random ones, as ratios and in standard deviations."""
        return {
            "r": trio.low_rank,
            **_named("z_low", "z_64", _pair(trio, _z)),
            **_over_random(trio),
        }

    def says(self, numbers: Numbers) -> str:
        """Return the numbers in words."""
        return (
            f"projection over isotropic random: {spread(numbers['over_random_low'])} at r = {numbers['r']}, "
            f"{spread(numbers['over_random_64'])} at r = 64; in standard deviations "
            f"{middle(numbers['z_low'], '.3g')} and {middle(numbers['z_64'], '.3g')}"
        )

    def isotropic(self, measures: Measures, numbers: Numbers) -> str:
        """Return the closed form."""
        return "1, and 0 standard deviations"

    def inputs(self, here: Numbers, scrambled: Numbers) -> str:
        """Return how much of the excess over random directions the scrambled text has."""
        if not (here["over_random_low"] and scrambled["over_random_low"]):
            return ""
        mine, inputs = (median(each["over_random_low"]) - 1 for each in (here, scrambled))
        if mine <= 0 or inputs < 0.5 * mine:
            return ""
        return (
            f"An adapter of the scrambled text carries {1 + inputs:.2f} times as much of W as isotropic random "
            f"directions, at r = {scrambled['r']}, against {1 + mine:.2f} here: W and every gradient read the same "
            "inputs, and that alone correlates them."
        )

    def why(self, measures: Measures) -> str:
        """Return why the numbers may differ from the paper's."""
        rows = rows_of(measures.here.ranks)
        d = rows[0].d if rows else 0
        return (
            f"The ratio is at most d / r, which is {d // 64} at r = 64 here and 192 in the paper: a smaller d leaves "
            "less room above isotropic random directions."
        )


class NotEmphasised(Claim):
    """Table 7, delta_W's directions against W's own."""

    key = "not_emphasised"
    claim = "delta_W amplifies directions that W does not emphasise, not W's own top directions."
    where = "section 7.3, table 7"
    paper = "projection over that on W's own directions: 0.32 / 21.67 = 0.015 at r = 4, 1.90 / 37.71 = 0.05 at r = 64"
    figure = "table7"
    rule = rules.NOT_EMPHASISED
    given = ("low", "r64", "over_random_low", "over_random_64")

    def numbers(self, measures: Measures, trio: Trio) -> dict[str, Any]:
        """Return the projections over those on W's own directions."""
        return {
            "r": trio.low_rank,
            **_named("low", "r64", _pair(trio, lambda module, rank: rank.proj_delta_W / rank.proj_W)),
            **_named(
                "isotropic_low",
                "isotropic_64",
                _pair(trio, lambda module, rank: rank.proj_random / rank.proj_W),
            ),
            **_over_random(trio),
        }

    def says(self, numbers: Numbers) -> str:
        """Return the numbers in words."""
        return f"{spread(numbers['low'])} at r = {numbers['r']}, {spread(numbers['r64'])} at r = 64"

    def isotropic(self, measures: Measures, numbers: Numbers) -> str:
        """Return the closed form."""
        return (
            f"{middle(numbers['isotropic_low'])} at r = {numbers['r']}, {middle(numbers['isotropic_64'])} at r = 64 "
            "(the paper's: 0.001 and 0.009)"
        )

    def why(self, measures: Measures) -> str:
        """Return why the numbers may differ from the paper's."""
        return (
            "In a small model r directions are a larger part of W: even random ones carry a good share, so the ratio "
            "cannot be as small as the paper's."
        )


class Amplifies(Claim):
    """Table 7, the amplification factor."""

    key = "amplifies"
    claim = "The amplification factor is large, and larger at a small rank."
    where = "section 7.3, table 7"
    paper = "21.5 at r = 4, 1.9 at r = 64"
    figure = "table7"
    rule = rules.AMPLIFIES_MOST_AT_LOW_RANK
    given = ("low", "r64")

    def numbers(self, measures: Measures, trio: Trio) -> dict[str, Any]:
        """Return the factors, and those of random directions for a delta_W of the same norm."""
        return {
            "r": trio.low_rank,
            **_named("low", "r64", _pair(trio, lambda module, rank: rank.amplification)),
            **_named("isotropic_low", "isotropic_64", _pair(trio, _random_factor)),
        }

    def says(self, numbers: Numbers) -> str:
        """Return the numbers in words."""
        return f"{spread(numbers['low'])} at r = {numbers['r']}, {spread(numbers['r64'])} at r = 64"

    def isotropic(self, measures: Measures, numbers: Numbers) -> str:
        """Return the closed form."""
        return (
            f"{middle(numbers['isotropic_low'])} at r = {numbers['r']}, {middle(numbers['isotropic_64'])} at r = 64, "
            "for a delta_W of the same norm (the paper's: 345 and 10.8): random directions are amplified more, since "
            "there is less of W in them"
        )

    def why(self, measures: Measures) -> str:
        """Return why the numbers may differ from the paper's."""
        return (
            "The factor is linear in the size of delta_W, which grows with the length of training and with alpha, and "
            "its denominator grows with r / d: a large factor is no evidence of anything that was learned."
        )


class NotTheTop(Claim):
    """Figure 8."""

    key = "not_the_top"
    claim = "delta_W does not contain the top singular directions of W."
    where = "appendix H.3, figure 8"
    paper = "phi of W's top 10 % and delta_W's top 4 barely exceeds 0.2 (isotropic 0.1)"
    figure = "fig8"
    rule = rules.NOT_THE_TOP
    given = ("phi", "isotropic")

    def numbers(self, measures: Measures, trio: Trio) -> dict[str, Any]:
        """Return phi of W's top tenth and the top four directions of A, and its isotropic mean."""
        phi, isotropic = [], []
        for row in rows_of(trio.against_base):
            i, j = row.phi.shape[0], min(4, row.phi.shape[1])
            phi.append(float(row.phi[i - 1, j - 1]))
            isotropic.append(max(i, j) / row.d)
        return {"r": trio.low_rank, "phi": phi, "isotropic": isotropic}

    def says(self, numbers: Numbers) -> str:
        """Return the numbers in words."""
        return f"phi {spread(numbers['phi'])} at r = {numbers['r']}"

    def isotropic(self, measures: Measures, numbers: Numbers) -> str:
        """Return the closed form."""
        return spread(numbers["isotropic"], ".3f")

    def inputs(self, here: Numbers, scrambled: Numbers) -> str:
        """Return how much of the overlap with W's top the scrambled text has."""
        if not (here["phi"] and scrambled["phi"]):
            return ""
        mine, inputs, random = median(here["phi"]), median(scrambled["phi"]), median(here["isotropic"])
        if mine < 2 * random or inputs - random < 0.5 * (mine - random):
            return ""
        return (
            f"An adapter of the scrambled text has {inputs:.2f}, against {mine:.2f} here: W and every gradient read "
            "the same inputs."
        )

    def why(self, measures: Measures) -> str:
        """Return why the numbers may differ from the paper's."""
        return (
            "The inputs of a small model's first layers may lie in a small subspace, which then holds both W's top "
            "directions and the gradient's. The paper shows one layer in the middle of 96."
        )
