"""What cutting an adapter to candidate ranks did to its held-out loss, and which ranks are enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subspace.text import counted, shown

__all__ = ["Candidate", "MeasuredRanks"]


@dataclass(frozen=True)
class Candidate:
    """Ranks that an adapter was cut to, and the loss that it then has.

    Attributes
    ----------
    name : such as "uniform 8", the same rank in every module, or a rule, whose ranks differ by module
    also : other candidates with the same ranks
    ranks : module -> rank
    parameters : numbers of A and B at these ranks, as a share of those at the numerical ranks
    loss : mean held-out loss
    difference : loss minus that of the whole adapter, nats
    upper : its simultaneous one-sided upper limit; None for the whole adapter, which needs none
    kept : share of the whole adapter's gain over the base that is left
    enough : whether `upper` is not above the margin
    """

    name: str
    also: tuple[str, ...]
    ranks: Mapping[str, int]
    parameters: float
    loss: float
    difference: float
    upper: float | None
    kept: float | None
    enough: bool

    def document(self) -> dict[str, Any]:
        """Return the candidate as an object of JSON."""
        return {**vars(self), "also": list(self.also), "ranks": dict(self.ranks)}


@dataclass(frozen=True)
class MeasuredRanks:
    """A ladder of candidates, tested on held-out examples against the whole adapter.

    The rule: a candidate is enough where the loss that it adds to that of the whole adapter is below the margin,
    `share` of its gain over the base, with one-sided confidence `level`: paired bootstrap of the examples,
    expanded percentiles, Bonferroni over all candidates. So the chance that any candidate which is called enough
    truly loses more than the margin is at most ``1 - level``. Of those that are enough, the one with the fewest
    parameters is advised; the whole adapter where none is.

    Attributes
    ----------
    model, data : names
    examples, noun : how many examples there are, and what one is
    loss_base, loss : of the model alone, and with the whole adapter
    gain, gain_low, gain_high : ``loss_base - loss`` with its two-sided 95 % interval
    share, margin : the loss that may be added, as a share of the gain and in nats
    level : of the upper limits, over all candidates together
    candidates : from the most parameters to the fewest
    advised : name of the candidate that is advised, "full" for the whole adapter; None where the gain is not clear
    resamples, seed : of the bootstrap
    """

    model: str
    data: str
    examples: int
    noun: str
    loss_base: float
    loss: float
    gain: float
    gain_low: float | None
    gain_high: float | None
    share: float
    margin: float
    level: float
    candidates: tuple[Candidate, ...]
    advised: str | None
    resamples: int
    seed: int

    def chosen(self) -> Candidate | None:
        """Return the candidate that is advised; None for the whole adapter, and where nothing could be tested."""
        return next((each for each in self.candidates if each.name == self.advised), None)

    def document(self) -> dict[str, Any]:
        """Return this as an object of JSON."""
        rule = (
            "one-sided upper limit of the added loss at most the margin; paired bootstrap, expanded percentiles, "
            "Bonferroni over the candidates; the fewest parameters of those"
        )
        return {**vars(self), "rule": rule, "candidates": [each.document() for each in self.candidates]}

    def facts(self) -> tuple[str, ...]:
        """Return what the test found, a sentence each."""
        few = f"{counted(self.examples, self.noun)} of {shown(self.data)}"
        if self.advised is None:
            return (
                f"Tested on {few}: the whole adapter makes no clear difference to the loss of its base "
                f"({self.gain:.2g} nats), so no rank can be called enough for it.",
            )
        wanted = f"{100 * (1 - self.share):.3g} % of what the adapter gains"
        many = counted(len(self.candidates), "candidate")
        best = self.chosen()
        if best is None:
            return (
                f"Tested on {few}: none of {many} surely keeps {wanted}; keep it whole, or test on more data.",
            )
        return (
            f"Tested on {few}: {best.name}, with {100 * best.parameters:.3g} % of the parameters, is the smallest of "
            f"{many} that surely keeps {wanted} (it keeps {100 * (best.kept or 0):.3g} %; one-sided, "
            f"{100 * self.level:g} % over all candidates together).",
            f"What the rules would have kept of the gain (and of the parameters): {self._rules()}.",
        )

    def _rules(self) -> str:
        """Each rule's share of the gain and of the parameters."""
        found = [
            f"{name} {100 * each.kept:.3g} % ({100 * each.parameters:.2g} %)"
            for each in self.candidates
            for name in (each.name, *each.also)
            if not name.startswith("uniform") and each.kept is not None
        ]
        return "; ".join(found) if found else "all of it"
