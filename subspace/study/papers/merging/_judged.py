"""Every predictor against both outcomes, with its nulls; measured once for findings, tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from subspace.study.papers.merging import _rules
from subspace.study.papers.merging._foretold import (
    SHUFFLES,
    Foretold,
    foretold,
    left_out,
    monotone,
    p_values,
    permutations,
    permuted,
)
from subspace.study.papers.merging._predictors import NORMS, PREDICTORS
from subspace.study.rules import AGREES, DIFFERS, PARTLY, UNTOLD

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats
    from subspace.study.papers.merging._measured import Measures, Sample

__all__ = ["OUTCOMES", "Judged", "Outcome", "Triples", "judged_all"]

OUTCOMES = ("harm", "transfer")
_TOO_OFTEN = 0.1  # share of shuffles: of 99, more than 9 meet a rule of level .05 in 2 of 100 cases


@dataclass(frozen=True, eq=False)
class Triples:
    """What the fit to pairs says of sums of three.

    Attributes
    ----------
    error : mean absolute error over samples, by fits to pairs without the task whose loss it is
    predicted, measured : of every sample
    """

    error: float
    predicted: Floats
    measured: Floats


@dataclass(frozen=True, eq=False)
class Judged:
    """One predictor of one outcome.

    Attributes
    ----------
    found : how well it foretells
    verdict : of the rule
    shuffled : what the rule says of outcomes whose tasks are permuted, verdict by verdict
    triples : None of transfer
    """

    found: Foretold
    verdict: str
    shuffled: tuple[str, ...]
    triples: Triples | None

    @property
    def noise(self) -> str:
        """The verdict that shuffled outcomes reach too often to be an accident."""
        if not self.shuffled or self.shuffled.count(UNTOLD) == len(self.shuffled):
            return UNTOLD
        agreeing = [self.shuffled.count(verdict) / len(self.shuffled) for verdict in (AGREES, PARTLY)]
        return AGREES if agreeing[0] > _TOO_OFTEN else PARTLY if sum(agreeing) > _TOO_OFTEN else DIFFERS


@dataclass(frozen=True, eq=False)
class Outcome:
    """All predictors of one outcome.

    Attributes
    ----------
    values : of the outcome, (copies, N, N)
    nothing : the mean of the other tasks as forecast
    by : predictor -> how it does
    nothing_triples : as `nothing`, of sums of three; None of transfer
    """

    values: Floats
    nothing: Foretold
    by: Mapping[str, Judged]
    nothing_triples: Triples | None


def judged_all(measures: Measures) -> dict[str, Outcome]:
    """Return how all predictors do, by outcome."""
    xs = {name: _square(measures, _valued(measures, name)) for name in PREDICTORS}
    return {outcome: _outcome(measures, xs, outcome) for outcome in OUTCOMES}


def _valued(measures: Measures, name: str) -> Callable[[Sample], float]:
    return lambda sample: PREDICTORS[name].value(measures.meetings[sample.copy], sample)


def _square(measures: Measures, value: Callable[[Sample], float]) -> Floats:
    N = len(measures.plan.tasks)
    found = np.full((measures.plan.copies, N, N), np.nan)
    for sample in measures.pairs():
        found[sample.copy, sample.task, sample.others[0]] = value(sample)
    return found


def _outcome(measures: Measures, xs: Mapping[str, Floats], outcome: str) -> Outcome:
    y = _square(measures, lambda sample: getattr(sample, outcome))
    constant = np.where(np.isfinite(y), 0.0, np.nan)
    nothing = foretold(constant, y)
    own = {name: foretold(x, y) for name, x in xs.items()}
    shuffled = _shuffled(xs, constant, y)
    harm = outcome == "harm"
    by = {
        name: Judged(
            found=own[name],
            verdict=_verdict(name, own[name].p, own[name].errors, nothing.errors, own[NORMS].errors),
            shuffled=shuffled[name],
            triples=_triples(measures, x, y, _valued(measures, name)) if harm else None,
        )
        for name, x in xs.items()
    }
    return Outcome(y, nothing, by, _triples(measures, constant, y, lambda sample: 0.0) if harm else None)


def _verdict(name: str, p: float, own: Floats, nothing: Floats, norms: Floats) -> str:
    """By the p-value, and the errors by the task left out of the predictor, of none and of the norms."""
    error, mean, null = (_mean(each) for each in (own, nothing, norms))
    if name == NORMS:
        return _rules.FORETELLS(p, error, mean, float(np.mean(own < nothing)))
    return _rules.FORETELLS_BEYOND(p, error, mean, null, float(np.mean(own < norms)))


def _mean(errors: Floats) -> float:
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if known.size else float("nan")


def _shuffled(xs: Mapping[str, Floats], constant: Floats, y: Floats) -> dict[str, tuple[str, ...]]:
    """What the rule says of each predictor for outcomes whose tasks are permuted."""
    orders = permutations(y.shape[1], SHUFFLES, seed=0)
    p = {name: p_values(x, y, orders)[1] for name, x in xs.items()}
    verdicts: dict[str, list[str]] = {name: [] for name in xs}
    for n, order in enumerate(orders):
        moved = permuted(y, order)
        errors = cache(lambda name, moved=moved: left_out(xs.get(name, constant), moved, monotone)[0])
        for name in xs:
            value = float(p[name][n])
            if not value <= _rules.LEVEL:  # then the errors decide nothing
                verdicts[name].append(UNTOLD if np.isnan(value) else DIFFERS)
                continue
            verdicts[name].append(_verdict(name, value, errors(name), errors(""), errors(NORMS)))
    return {name: tuple(each) for name, each in verdicts.items()}


def _triples(measures: Measures, x: Floats, y: Floats, value: Callable[[Sample], float]) -> Triples:
    samples = measures.triples()
    at = np.array([value(sample) for sample in samples])
    predicted = np.full(len(samples), np.nan)
    for task in range(y.shape[1]):
        train = np.isfinite(x) & np.isfinite(y)
        train[:, task, :] = train[:, :, task] = False
        own = np.array([sample.task == task for sample in samples], dtype=bool) & np.isfinite(at)
        if train.sum() >= 3 and own.any():
            predicted[own] = monotone(x[train], y[train])(at[own])
    return _compared(predicted, samples)


def _compared(predicted: Floats, samples: Sequence[Sample]) -> Triples:
    measured = np.array([sample.harm for sample in samples])
    known = np.isfinite(predicted) & np.isfinite(measured)
    error = float(np.mean(np.abs(predicted - measured)[known])) if known.any() else float("nan")
    return Triples(error, predicted, measured)
