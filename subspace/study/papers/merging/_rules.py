"""The rules by which a verdict on a predictor follows from numbers, each with its text."""

from __future__ import annotations

from subspace.study.rules import AGREES, DIFFERS, PARTLY, Rule

__all__ = ["FORETELLS", "FORETELLS_BEYOND", "LEVEL"]

LEVEL = 0.05  # of the rank correlation
_MOSTLY = 0.75


def _foretells(p: float, error: float, nothing: float, wins: float) -> str:
    """P of the rank correlation, errors for a task left out, share of tasks where the first error is the smaller."""
    if p > LEVEL or error >= nothing:
        return DIFFERS
    return AGREES if wins >= _MOSTLY else PARTLY


def _foretells_beyond(p: float, error: float, nothing: float, norms: float, wins: float) -> str:
    """The same with the error of the norms alone, and the share of tasks where they are beaten."""
    if p > LEVEL or error >= nothing:
        return DIFFERS
    return AGREES if error < norms and wins >= _MOSTLY else PARTLY


FORETELLS = Rule(
    "Agrees if the rank correlation is significant (5 %, tasks permuted), and for a task left out the error of a "
    "monotone fit to the other tasks is below that of their mean, in the mean and for three quarters of the tasks; in "
    "part if in the mean only; else it differs: the predictor fails.",
    _foretells,
)
FORETELLS_BEYOND = Rule(
    "Agrees if the rank correlation is significant (5 %, tasks permuted), and for a task left out the error of a "
    "monotone fit to the other tasks is below that of their mean, and below that of the norms alone, in the mean and "
    "for three quarters of the tasks; in part if it is below that of the mean, but the norms are as good; else it "
    "differs: the predictor fails.",
    _foretells_beyond,
)
