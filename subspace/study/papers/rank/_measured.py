"""What is measured: the losses of adapters trained at every rank, of r = 64 cut to it, and cut as each rule advises."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter, load_adapter, load_base
from subspace.analysis.evaluate import evaluate
from subspace.analysis.truncate import truncate
from subspace.geometry import factored
from subspace.geometry.bootstrap import interval, resampled_sums
from subspace.study.papers.rank._advice import RULES
from subspace.study.papers.rank._planned import RANKS, WHOLE
from subspace.study.plan import base_folder
from subspace.study.random_adapter import random_adapter
from subspace.study.study_folder import run_record

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats
    from subspace.results.evaluation import MeasuredUpdate
    from subspace.study.tuned_plan import TunedPlan

__all__ = ["Advised", "Difference", "Measures", "Sweep", "measured"]

WINDOWS = 96  # of the held-out text
_TASK = "task"


@dataclass(frozen=True)
class Difference:
    """A loss minus another on the same windows, with the 95 % interval of a paired bootstrap; in nats per token."""

    loss: float
    difference: float
    low: float
    high: float

    def worse(self, error: float = 0.0) -> bool:
        """Return whether the loss is surely higher than the other, and by more than an error."""
        return self.low > 0 and self.difference > error


@dataclass(frozen=True)
class Advised:
    """What a rule advises for one adapter, and what cutting every module so does.

    Attributes
    ----------
    ranks : module -> rank; () of a rule that has no answer for some module keeps that one whole
    unanswered : how many modules the rule has no answer for
    cut : the loss, with the difference from the whole adapter
    """

    ranks: Mapping[str, int]
    unanswered: int
    cut: Difference

    @property
    def mean(self) -> float:
        """The mean rank over modules."""
        return float(np.mean(list(self.ranks.values())))


@dataclass(frozen=True)
class Sweep:
    """One adapter of r = 64 cut to every rank, and as every rule advises.

    Attributes
    ----------
    base, whole : losses of the base and of the adapter as it was trained
    cut : rank -> the loss, with the difference from the whole adapter
    advised : rule -> what it advises
    error : by how much two seeds of r = 64 differ, below which a difference decides nothing
    """

    base: float
    whole: float
    cut: Mapping[int, Difference]
    advised: Mapping[str, Advised]
    error: float

    @property
    def enough(self) -> int:
        """The smallest rank from which no cut is surely worse than the whole by more than two seeds differ."""
        return self._least(self.error)

    @property
    def indistinguishable(self) -> int:
        """The smallest rank from which no cut is surely worse than the whole by anything."""
        return self._least(0.0)

    def _least(self, error: float) -> int:
        ranks = sorted(self.cut, reverse=True)
        good = list(takewhile(lambda rank: not self.cut[rank].worse(error), ranks))
        return good[-1] if good else ranks[0]

    def kept(self, loss: float) -> float:
        """Return the share of what the whole adapter gains that a loss keeps; NaN where it gains nothing."""
        gain = self.base - self.whole
        return (self.base - loss) / gain if gain > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Measures:
    """Everything that figures, tables and findings are computed from.

    Attributes
    ----------
    plan : of the study
    runs : content of each run's ``run.json``, by the run's name
    native : rank -> the loss of the adapter trained at that rank, with the difference from that of r = 64
    between_seeds : the loss of the other seed of r = 64, with the difference from the first
    sweeps : of the runs of `WHOLE`, by name, of the barely trained one, and of "random"
    spectra : singular values of the first adapter of r = 64, by module
    """

    plan: TunedPlan
    runs: Mapping[str, Mapping[str, Any]]
    native: Mapping[int, Difference]
    between_seeds: Difference
    sweeps: Mapping[str, Sweep]
    spectra: Mapping[str, Floats]

    @property
    def here(self) -> Sweep:
        """The sweep of the first adapter of r = 64."""
        return self.sweeps[WHOLE[0]]


def measured(
    plan: TunedPlan, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> Measures:
    """Return what is measured on the trained runs of a plan.

    Raises
    ------
    SubspaceError : something cannot be read
    """
    return _Measuring(plan, folder, progress or (lambda *_: None)).all()


class _Measuring:
    """The measures of one study, which are counted as they are taken."""

    def __init__(self, plan: TunedPlan, folder: Path, progress: Callable[[int, int], None]) -> None:
        self.plan, self.folder, self.progress = plan, folder, progress
        self.weights = load_base(base_folder(plan.model))
        self.done, self.total = 0, 5

    def all(self) -> Measures:
        native, seeds = self.native()
        wholes = {name: self.adapter(name) for name in (*WHOLE, "barely-r64")}
        wholes["random"] = random_adapter(wholes[WHOLE[0]], seed=0)
        sweeps = {name: self.sweep(each, abs(seeds.difference)) for name, each in wholes.items()}
        runs = {run.name: run_record(self.folder / run.name) for run in self.plan.runs}
        return Measures(self.plan, runs, native, seeds, sweeps, _spectra(wholes[WHOLE[0]]))

    def adapter(self, name: str) -> Adapter:
        return load_adapter(self.folder / name, base=self.weights)

    def native(self) -> tuple[dict[int, Difference], Difference]:
        names = {f"r{rank}": self.adapter(f"r{rank}") for rank in RANKS} | {WHOLE[1]: self.adapter(WHOLE[1])}
        rows = self.rows(names)
        found = {rank: _difference(rows[f"r{rank}"], rows[WHOLE[0]]) for rank in RANKS}
        return found, _difference(rows[WHOLE[1]], rows[WHOLE[0]])

    def sweep(self, whole: Adapter, error: float) -> Sweep:
        spectra = _spectra(whole)
        ranks = {name: _advised(rule.rank, whole, spectra) for name, rule in RULES.items()}
        updates = {"whole": whole} | {
            f"cut {rank}": truncate(whole, rank=rank).adapter for rank in RANKS[:-1]
        }
        for name, advised in ranks.items():
            patterns = {re.escape(module): rank for module, rank in advised.items() if rank is not None}
            updates[f"as {name}"] = truncate(whole, ranks=patterns).adapter if patterns else whole
        rows = self.rows(updates)
        cut = {rank: _difference(rows[f"cut {rank}"], rows["whole"]) for rank in RANKS[:-1]}
        cut[RANKS[-1]] = Difference(rows["whole"].loss, 0.0, 0.0, 0.0)
        return Sweep(
            rows["base"].loss,
            rows["whole"].loss,
            cut,
            {
                name: _as_advised(whole, advised, _difference(rows[f"as {name}"], rows["whole"]))
                for name, advised in ranks.items()
            },
            error,
        )

    def rows(self, updates: Mapping[str, Adapter]) -> dict[str, MeasuredUpdate]:
        plan = self.plan
        from subspace.training.recipe import Recipe

        found = evaluate(
            plan.model,
            updates,
            {_TASK: plan.data},
            held_out=Recipe.held_out,
            most=WINDOWS,
            length=plan.length,
            resamples=1,  # of every pair, below: these would be of the base alone
        )
        self.done += 1
        self.progress(self.done, self.total)
        return {row.update: row for row in found.modules}


def _difference(row: MeasuredUpdate, other: MeasuredUpdate) -> Difference:
    weights = row.weights
    columns = np.stack([(row.losses - other.losses) * weights, weights], axis=1)
    sampled = resampled_sums(columns, value=lambda sums: sums[:, :1] / sums[:, 1:])[:, 0]
    return Difference(row.loss, row.loss - other.loss, *interval(sampled, len(weights)))


def _spectra(adapter: Adapter) -> dict[str, Floats]:
    """Singular values of every delta_W, above rounding."""
    found = {}
    for module, update in adapter.items():
        low_rank: Any = update
        S = factored.singular_values(low_rank.B, low_rank.A) * abs(update.scale.value or 1.0)
        found[module] = S[1e-7 * S[0] < S] if S[0] > 0 else S[:1]
    return found


def _advised(
    rule: Callable[[Floats, tuple[int, int]], int | None], whole: Adapter, spectra: Mapping[str, Floats]
) -> dict[str, int | None]:
    return {module: rule(S, (whole[module].d_out, whole[module].d_in)) for module, S in spectra.items()}


def _as_advised(whole: Adapter, advised: Mapping[str, int | None], cut: Difference) -> Advised:
    ranks = {module: whole[module].r if rank is None else rank for module, rank in advised.items()}
    return Advised(ranks, sum(rank is None for rank in advised.values()), cut)
