"""An adapter cut to candidate ranks, and which of them are enough for its held-out loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subspace.adapters import Adapter
from subspace.analysis.evaluate import evaluate
from subspace.analysis.rank_advice import ENERGIES, RULES, Advice, advice, rule_name
from subspace.analysis.truncate import truncate
from subspace.analysis.update_variants import BASE
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.geometry.bootstrap import interval, resampled_sums
from subspace.results.evaluation import Evaluation, MeasuredUpdate
from subspace.results.spectrum import ModuleSpectrum, Spectrum
from subspace.results.tested_ranks import Candidate, MeasuredRanks
from subspace.text import listed

__all__ = ["FULL", "RankTrial", "candidates", "measured_advice"]

FULL = "full"
LEVEL = 0.95


@dataclass(frozen=True)
class RankTrial:
    """What ranks are tested on.

    Attributes
    ----------
    model, data : as `evaluate` takes them
    margin : share of the gain that may be lost
    settings : further keywords of `evaluate`
    """

    model: Any
    data: Any
    margin: float
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise ValueRangeError(
                f"Invalid share of the gain to lose: {self.margin}; give `margin` a number in (0, 1), such as 0.05"
            )

    def carried_out(
        self,
        adapter: Adapter,
        rows: Sequence[ModuleSpectrum],
        energy: float,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[MeasuredRanks, tuple[str, ...]]:
        """Return what was found, and what to know of the evaluation.

        Raises
        ------
        InconclusiveError : no module has a direction, or a scale is unknown
        SubspaceError : the model or the data cannot be read, or do not fit
        """
        found = candidates(rows, energy)
        whole = {row.module: row.rank for row in rows if row.rank}
        if not whole:
            raise InconclusiveError(
                "Every delta_W is zero (untrained), so there are no ranks to test; train it first"
            )
        cut = {each: _cut(adapter, ranks) for each, ranks in found.items() if ranks != whole}
        evaluation = evaluate(
            self.model,
            {FULL: adapter, **{names[0]: low for names, low in cut.items()}},
            self.data,
            reference=FULL,
            progress=progress,
            **self.settings,
        )
        if len(evaluation.data) != 1:
            raise ValueRangeError(
                f"Ranks are tested on one set of data, not on {len(evaluation.data)}: "
                f"{listed(each.name for each in evaluation.data)}; give one as `data`"
            )
        return _judged(self, evaluation, found, rows), evaluation.notes


def candidates(rows: Sequence[ModuleSpectrum], energy: float) -> dict[tuple[str, ...], dict[str, int]]:
    """Return names -> module -> rank: half of the largest rank, a quarter, ... 1 in every module, and of each rule.

    Candidates of the same ranks are one, with several names.
    """
    trained = [row for row in rows if row.rank]
    found: dict[str, dict[str, int]] = {}
    k = max((row.rank or 0 for row in trained), default=0) // 2
    while k >= 1:
        found[f"uniform {k}"] = {row.module: min(k, row.rank or k) for row in trained}
        k //= 2
    shares = sorted({*ENERGIES, energy})
    for rule in RULES:
        for share in shares if rule == "energy" else [energy]:
            ranks = {row.module: advice(row, rule, share).rank or 1 for row in trained}
            found[rule_name(rule, share)] = ranks
    names: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for name, ranks in found.items():
        names.setdefault(tuple(ranks.items()), []).append(name)
    return {tuple(same): dict(ranks) for ranks, same in names.items()}


def measured_advice(row: ModuleSpectrum, found: MeasuredRanks) -> Advice:
    """The rank of a module at the candidate that is advised."""
    best = found.chosen()
    if not row.rank:
        return advice(row, "energy", 0.95)
    if best is None:
        return Advice(row.rank, "no lower ranks that were tested surely keep the gain in held-out loss")
    rank = best.ranks.get(row.module, row.rank)
    return Advice(rank, f"{best.name} is the smallest candidate that keeps the gain in held-out loss")


def _cut(adapter: Adapter, ranks: Mapping[str, int]) -> Adapter:
    pattern = Spectrum(
        adapter.path, "", tuple(ModuleSpectrum(module=m, r=k, advised_rank=k) for m, k in ranks.items())
    )
    return truncate(adapter, ranks=pattern.rank_pattern()).adapter


def _judged(
    test: RankTrial,
    evaluation: Evaluation,
    found: Mapping[tuple[str, ...], dict[str, int]],
    rows: Sequence[ModuleSpectrum],
) -> MeasuredRanks:
    base, full = evaluation[BASE], evaluation[FULL]
    gain = base.loss - full.loss
    clear = base.loss_low is not None and base.loss_low > 0
    measured = {names: evaluation[names[0]] if names[0] in _updates(evaluation) else full for names in found}
    upper = _upper([each for each in measured.values() if each is not full], full, test.settings)
    margin = test.margin * gain
    sizes = {row.module: row.d_in + row.d_out for row in rows}
    most = sum(sizes[row.module] * row.rank for row in rows if row.rank)
    judged = [
        _candidate(
            names, ranks, of, full,
            parameters=sum(sizes[module] * k for module, k in ranks.items()) / most,
            upper=None if of is full else upper[of.update],
            gain=gain if clear else None,
            margin=margin,
        )
        for (names, ranks), of in zip(found.items(), measured.values(), strict=True)
    ]  # fmt: skip
    judged.sort(key=lambda each: (-each.parameters, each.loss))
    enough = [each for each in judged if each.enough and each.parameters < 1]
    best = min(enough, key=lambda each: (each.parameters, each.loss)).name if enough else FULL
    data = evaluation.data[0]
    return MeasuredRanks(
        model=evaluation.model,
        data=data.name,
        examples=data.examples,
        noun=data.noun,
        loss_base=base.loss,
        loss=full.loss,
        gain=gain,
        gain_low=base.loss_low,
        gain_high=base.loss_high,
        share=test.margin,
        margin=margin,
        level=LEVEL,
        candidates=tuple(judged),
        advised=best if clear else None,
        resamples=evaluation.resamples,
        seed=evaluation.seed,
    )


def _updates(evaluation: Evaluation) -> set[str]:
    return {row.update for row in evaluation}


def _candidate(
    names: tuple[str, ...],
    ranks: Mapping[str, int],
    of: MeasuredUpdate,
    full: MeasuredUpdate,
    *,
    parameters: float,
    upper: float | None,
    gain: float | None,
    margin: float,
) -> Candidate:
    added = of.loss - full.loss
    return Candidate(
        name=names[0],
        also=names[1:],
        ranks=ranks,
        parameters=parameters,
        loss=of.loss,
        difference=added,
        upper=upper,
        kept=None if gain is None else 1 - added / gain,
        enough=gain is not None and (upper is None or upper <= margin),
    )


def _upper(
    cut: Sequence[MeasuredUpdate], full: MeasuredUpdate, settings: Mapping[str, Any]
) -> dict[str, float]:
    """Simultaneous upper limits of the added losses, by name; infinite for a single example."""
    if not cut:
        return {}
    both = [full, *cut]
    columns = np.concatenate(
        [np.stack([each.losses * each.weights, each.weights], axis=1) for each in both], axis=1
    )
    samples = resampled_sums(
        columns,
        value=lambda sums: sums[:, 0::2] / sums[:, 1::2],
        resamples=settings["resamples"],
        seed=settings["seed"],
    )
    # of a two-sided interval of this level each end is passed with the chance of one candidate
    level = 1 - 2 * (1 - LEVEL) / len(cut)
    ends = (
        interval(samples[:, n] - samples[:, 0], len(full.losses), level=level)[1] for n in range(1, len(both))
    )
    return {each.update: end if end == end else float("inf") for each, end in zip(cut, ends, strict=True)}  # noqa: PLR0124
