"""A claim of the paper's section 7 as a question to any three adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, ClassVar

from subspace.study.finding import Finding, Met
from subspace.study.measurements import Measures
from subspace.study.rules import Rule, judged
from subspace.study.trio import Trio

__all__ = ["Claim", "middle", "spread"]

Numbers = Mapping[str, Any]


class Claim(ABC):
    """A claim with its rule, which is asked of the adapters of the study and of every control alike."""

    key: ClassVar[str]
    claim: ClassVar[str]
    where: ClassVar[str]
    paper: ClassVar[str]
    figure: ClassVar[str]
    rule: ClassVar[Rule]
    # the numbers that the rule is given, in its order
    given: ClassVar[tuple[str, ...]]

    @abstractmethod
    def numbers(self, measures: Measures, trio: Trio) -> dict[str, Any]:
        """Return the numbers of three adapters by name; those of `given` are among them."""

    @abstractmethod
    def says(self, numbers: Numbers) -> str:
        """Return the numbers in words."""

    @abstractmethod
    def isotropic(self, measures: Measures, numbers: Numbers) -> str:
        """Return the same numbers of isotropic random spans or directions, in words."""

    @abstractmethod
    def why(self, measures: Measures) -> str:
        """Return why the numbers may differ from the paper's."""

    def inputs(self, here: Numbers, scrambled: Numbers) -> str:
        """Return how much of it is the inputs alone, in a sentence; "" where that cannot be said."""
        return ""

    def found(self, measures: Measures) -> Finding:
        """Return what was found, here and with every control."""
        here = self._met(measures, measures.here)
        controls = {name: self._met(measures, trio) for name, trio in measures.controls.items()}
        return Finding(
            key=self.key,
            claim=self.claim,
            where=self.where,
            paper=self.paper,
            here=here,
            controls=controls,
            nulls={"isotropic": self.isotropic(measures, here.numbers)},
            inputs=self.inputs(here.numbers, controls["scrambled"].numbers),
            verdict=judged(here.verdict, [each.verdict for each in controls.values()]),
            rule=self.rule.text,
            why=self.why(measures),
            figure=self.figure,
        )

    def _met(self, measures: Measures, trio: Trio) -> Met:
        numbers = self.numbers(measures, trio)
        verdict = self.rule(*(numbers[name] for name in self.given))
        return Met(verdict, self.says(numbers), numbers)


def middle(values: Sequence[float], digits: str = ".2f") -> str:
    """Return a median in words; "none" where there is no number.

    Examples
    --------
    >>> middle([1.0, 2.0, 4.0])
    '2.00'
    """
    return _rounded(median(values), digits) if values else "none"


def spread(values: Sequence[float], digits: str = ".2f") -> str:
    """Return a median with the least and the greatest value; one number where all are the same.

    Examples
    --------
    >>> spread([1.0, 2.0, 4.0])
    '2.00 (1.00 to 4.00)'
    >>> spread([])
    'none'
    """
    if not values:
        return "none"
    low, high = (_rounded(each, digits) for each in (min(values), max(values)))
    return middle(values, digits) if low == high else f"{middle(values, digits)} ({low} to {high})"


def _rounded(value: float, digits: str) -> str:
    """A number in words; never a rounded -0.00."""
    text = format(value, digits)
    return text.removeprefix("-") if float(text) == 0 else text
