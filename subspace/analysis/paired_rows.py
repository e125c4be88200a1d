"""Rows of an evaluation from what each update does on the same examples: measures, differences, paired intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.analysis.outcome_measures import MEASURES, Measure
from subspace.analysis.update_variants import Variant
from subspace.geometry.bootstrap import interval, resampled_sums
from subspace.results.evaluation import MeasuredUpdate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.training.outcomes import Outcomes

__all__ = ["paired_rows"]


def paired_rows(
    variants: Sequence[Variant],
    found: Sequence[Outcomes],
    *,
    data: str,
    reference: str,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[MeasuredUpdate]:
    """Return a row for each update.

    Parameters
    ----------
    variants : the base first
    found : outcomes of each, on the same examples
    data : name of the data
    reference : name of the variant that differences are taken from
    level, resamples, seed : of the intervals
    """
    names, n = [variant.name for variant in variants], len(found[0].losses)
    cells: list[dict[str, Any]] = [{} for _ in variants]
    for measure in MEASURES:
        columns = [measure.columns(each) for each in found]
        if any(each is None for each in columns):
            continue
        values, samples = _sampled(measure, columns, resamples, seed)
        compared = _Compared(values, samples, n, level)
        at = names.index(reference)
        for k, variant in enumerate(variants):
            cells[k] |= compared.cells(measure.name, k, at)
            if measure.name == "loss" and variant.of in names:
                cells[k] |= compared.kept(k, names.index(variant.of or ""))
    return [
        MeasuredUpdate(
            update=variant.name,
            data=data,
            kind=variant.kind,
            bits_per_byte=_bits(own["loss"], each.per_byte),
            losses=each.losses,
            weights=each.weights,
            **own,
        )
        for variant, each, own in zip(variants, found, cells, strict=True)
    ]


def _sampled(
    measure: Measure, columns: Sequence[Any], resamples: int, seed: int
) -> tuple[list[float], list[NDArray[np.float64]]]:
    """The value of each variant, and its values in the resamples, which are the same draws for all."""
    ends = np.cumsum([each.shape[1] for each in columns])[:-1]

    def values(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([measure.value(part) for part in np.split(sums, ends, axis=1)], axis=1)

    samples = resampled_sums(np.concatenate(columns, axis=1), value=values, resamples=resamples, seed=seed)
    return [float(measure.value(each.sum(axis=0))) for each in columns], list(samples.T)


class _Compared:
    """One measure of all variants."""

    def __init__(self, values: list[float], samples: list[NDArray[np.float64]], n: int, level: float) -> None:
        self.values, self.samples, self.n, self.level = values, samples, n, level

    def cells(self, name: str, k: int, reference: int) -> dict[str, float | None]:
        """Columns of one variant: the measure, and how it differs from the reference."""
        if k == reference:
            return {name: self.values[k]}
        low, high = self._interval(self.samples[k] - self.samples[reference])
        difference = self.values[k] - self.values[reference]
        return {
            name: self.values[k],
            f"{name}_difference": difference,
            f"{name}_low": low,
            f"{name}_high": high,
        }

    def kept(self, cut: int, whole: int) -> dict[str, float | None]:
        """The share of what the whole adapter changes that is left; nothing, where that is not clear."""
        changed = self.samples[whole] - self.samples[0]
        low, high = self._interval(changed)
        if low is None or high is None or low * high <= 0:
            return {}
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # a resample in which the whole one changes nothing
            low, high = self._interval((self.samples[cut] - self.samples[0]) / changed)
        share = (self.values[cut] - self.values[0]) / (self.values[whole] - self.values[0])
        return {"kept": share, "kept_low": low, "kept_high": high}

    def _interval(self, samples: NDArray[np.float64]) -> tuple[float | None, float | None]:
        low, high = interval(samples, self.n, level=self.level)
        return (None, None) if math.isnan(low) else (low, high)


def _bits(loss: float, per_byte: float | None) -> float | None:
    return None if per_byte is None else loss / math.log(2) / per_byte
