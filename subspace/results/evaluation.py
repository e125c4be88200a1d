"""The result of `evaluate`: what adapters do to the loss of their model, on the same examples, and how surely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from subspace.results.columns import Column, column, row
from subspace.results.result import Result, Row
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Evaluation", "MeasuredAdapter", "MeasuredData", "MeasuredUpdate"]

_OF = "interval of the difference from the reference, 95 %, paired bootstrap"


def _interval(measure: str, end: str, drop: int) -> Any:
    label = end if measure == "loss" else f"{measure.replace('_', ' ')} {end}"
    text = f"{'Lower' if end == 'low' else 'Upper'} end of the {_OF}, of {measure}"
    return column(text, label=label, drop=drop, default=None)


@row
class MeasuredUpdate(Row):
    """What was put onto the model, and what the model then does on some data."""

    update: str = column(
        "What is put onto the model: base for nothing, an adapter by its name, NAME@r=4 for one cut to rank 4, or a sum"
    )
    data: str = column("Name of the data")
    kind: str = column('"base", "adapter", "truncated" or "merged"', place="record", default="adapter")
    loss: float = column("Mean cross-entropy", unit="nats per token; per text, where texts have classes")
    loss_difference: float | None = column(
        "Loss minus that of the reference: below 0 is better", label="difference", default=None
    )
    loss_low: float | None = _interval("loss", "low", 0)
    loss_high: float | None = _interval("loss", "high", 0)
    kept: float | None = column(
        "Share of what the whole adapter changes in the loss of the base that is left after the cut; None where the "
        "whole adapter makes no clear difference",
        default=None,
    )
    kept_low: float | None = column("Lower end of the 95 % interval of kept", place="record", default=None)
    kept_high: float | None = column("Upper end of the 95 % interval of kept", place="record", default=None)
    bits_per_byte: float | None = column(
        "Loss in bits per byte of text", label="bits per byte", drop=7, default=None
    )
    accuracy: float | None = column(
        "Share of tokens, or texts, that are predicted right", range="[0, 1]", default=None
    )
    accuracy_difference: float | None = column(
        "Accuracy minus that of the reference", label="accuracy difference", drop=6, default=None
    )
    accuracy_low: float | None = _interval("accuracy", "low", 4)
    accuracy_high: float | None = _interval("accuracy", "high", 5)
    macro_f1: float | None = column(
        "F1 averaged over the classes that occur or are predicted",
        label="macro F1",
        range="[0, 1]",
        default=None,
    )
    macro_f1_difference: float | None = column(
        "macro_f1 minus that of the reference", label="macro F1 difference", drop=3, default=None
    )
    macro_f1_low: float | None = _interval("macro_f1", "low", 1)
    macro_f1_high: float | None = _interval("macro_f1", "high", 2)
    losses: NDArray[np.float64] = column("Loss of each example, in the order of the data", place="grid")
    weights: NDArray[np.float64] = column(
        "How many predictions each example has, by which losses are averaged", place="grid"
    )

    @property
    def module(self) -> str:  # type: ignore[override]
        """The update, under the name by which every result finds its rows."""
        return self.update

    @property
    def clear(self) -> bool:
        """Whether the interval of the loss's difference leaves out 0."""
        return self.loss_low is not None and self.loss_high is not None and self.loss_low * self.loss_high > 0


@dataclass(frozen=True)
class MeasuredAdapter:
    """An adapter that was put onto the model.

    Attributes
    ----------
    name : by which rows call it
    path, format : as `Adapter` has them
    modules : how many it changes
    kept : parameters that its file holds in full, such as a classifier, which are put onto the model too
    """

    name: str
    path: str
    format: str
    modules: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredData:
    """Data that were measured on.

    Attributes
    ----------
    name : by which rows call them
    path : where they are from
    summary : how much there is
    sha256 : of the file
    noun : what an example is: "window" or "text"
    unit : what a loss is the mean over: "token" or "text"
    examples : how many were measured
    predictions : how many tokens, or texts, those are
    held_out : fraction of the data that was held out, of which the examples are; 1 for all of the data
    """

    name: str
    path: str
    summary: str
    sha256: str
    noun: str
    unit: str
    examples: int
    predictions: int
    held_out: float


@dataclass(frozen=True, eq=False)
class Evaluation(Result[MeasuredUpdate]):
    """Losses of a model with nothing, adapters, cut ones and sums of them put onto it, on the same examples.

    ``result["r8"]`` is the row of an adapter, ``result["r8", "own"]`` that on one of several data; its `losses` are
    those of the examples, for statistics of your own.

    Attributes
    ----------
    model : its name
    reference : name of the update that differences are taken from
    modules : one row per update and data
    adapters, data : what was measured
    level, resamples, seed : of the intervals
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.evaluate/1"
    ROW: ClassVar[type[Row]] = MeasuredUpdate
    KEYS: ClassVar[tuple[str, ...]] = ("module", "data")

    model: str
    reference: str
    modules: tuple[MeasuredUpdate, ...]
    adapters: tuple[MeasuredAdapter, ...]
    data: tuple[MeasuredData, ...]
    level: float = 0.95
    resamples: int = 10_000
    seed: int = 0
    notes: tuple[str, ...] = ()

    def document(self, *, losses: bool = False) -> dict[str, Any]:
        """Return the JSON document ``subspace.evaluate/1``; with `losses`, that of each example too."""
        return {
            "schema": self.SCHEMA,
            "model": self.model,
            "reference": self.reference,
            "headline": self.headline(),
            "rows": [each.document(grid=losses) for each in self.modules],
            "adapters": [{**vars(each), "kept": list(each.kept)} for each in self.adapters],
            "data": [dict(vars(each)) for each in self.data],
            "interval": {
                "method": "paired bootstrap of examples, expanded percentiles",
                "level": self.level,
                "resamples": self.resamples,
                "seed": self.seed,
            },
            "notes": list(self.notes),
        }

    def table_columns(self) -> list[Column]:
        """Return the columns of the short table: without those that no row has, and without the data if all are one."""
        empty = {
            each.name for each in super().table_columns() if all(_lacks(row, each) for row in self.modules)
        }
        one = {"data"} if len(self.data) == 1 else set()
        return [each for each in super().table_columns() if each.name not in empty | one]

    def headline(self) -> str:
        """Return what the first adapters do to the loss; of many, how many do what."""
        found = [self._fact(row, of) for of in self.data for row in self._whole(of)]
        if not found:
            base = self.modules[0] if self.modules else None
            return (
                "Nothing was measured."
                if base is None
                else f"The loss of the model alone is {base.loss:.4g}."
            )
        return " ".join(found) if len(found) <= 3 else self._counted()

    def facts(self) -> tuple[str, ...]:
        """Return a sentence for each adapter and sum, then what the examples are and what comes from the files."""
        found = [self._fact(row, of) for of in self.data for row in self._whole(of)]
        return (*(found or [self.headline()]), *map(self._examples, self.data), *self._in_full())

    def _whole(self, of: MeasuredData) -> list[MeasuredUpdate]:
        """Rows of some data that get a sentence of their own."""
        rows = [row for row in self.modules if row.data == of.name and row.update != self.reference]
        names = {row.update for row in rows}
        return [
            row for row in rows if row.kind != "truncated" or row.update.rpartition("@r=")[0] not in names
        ]

    def _fact(self, row: MeasuredUpdate, of: MeasuredData) -> str:
        """What an update does to the loss, and what is left of that after the cuts."""
        where = f"On {shown(of.name)}, " if len(self.data) > 1 else ""
        cuts = [
            f"{'' if n else 'truncated '}to rank {cut.update.rpartition('@r=')[2]} {'' if n else 'it keeps '}"
            f"{_share(cut)}"
            for n, cut in enumerate(each for each in self._cuts(row) if each.kept is not None)
        ]
        after = f"; {', '.join(cuts)} of that" if cuts else ""
        return f"{where}{shown(row.update)} {self._change(row, of)}{after}."

    def _change(self, row: MeasuredUpdate, of: MeasuredData) -> str:
        if row.loss_difference is None:
            return f"has a loss of {row.loss:.4g}"
        against = "the base" if self.reference == "base" else shown(self.reference)
        what = f"the {'held-out ' if of.held_out < 1 else ''}loss"
        extent = _extent(row.loss_difference, row.loss_low, row.loss_high, flip=row.clear)
        unit = f"nats per {of.unit} against {against}"
        if not row.clear:
            few = counted(of.examples, of.noun)
            return f"makes no clear difference to {what} on {few}: {extent} {unit}"
        return f"{'lowers' if row.loss_difference < 0 else 'raises'} {what} by {extent} {unit}"

    def _cuts(self, row: MeasuredUpdate) -> list[MeasuredUpdate]:
        start = f"{row.update}@r="
        return [
            each
            for each in self.modules
            if each.data == row.data and each.kind == "truncated" and each.update.startswith(start)
        ]

    def _counted(self) -> str:
        rows = [row for of in self.data for row in self._whole(of)]
        lower = sum(row.clear and (row.loss_difference or 0) < 0 for row in rows)
        higher = sum(row.clear and (row.loss_difference or 0) > 0 for row in rows)
        return (
            f"Of {len(rows)} losses, {lower} are below that of {shown(self.reference)}, {higher} above it, and "
            f"{len(rows) - lower - higher} not clearly different."
        )

    def _examples(self, of: MeasuredData) -> str:
        held = "all of" if of.held_out >= 1 else "held out of"
        blocks = (
            "; a window is a block of text, and what neighbouring windows have in common is not accounted for"
            if of.noun == "window"
            else ""
        )
        return (
            f"Measured on {counted(of.examples, of.noun)}, {held} {shown(of.summary)} ({shown(of.name)}). Intervals "
            f"are {100 * self.level:g} %, by {self.resamples:,} paired bootstrap resamples of the {of.noun}s{blocks}."
        )

    def _in_full(self) -> list[str]:
        return [
            f"{shown(each.name)} comes with parameters that were trained in full, which are put onto the model too: "
            f"{listed(each.kept)}."
            for each in self.adapters
            if each.kept
        ]


def _lacks(row: MeasuredUpdate, each: Column) -> bool:
    return getattr(row, each.name) is None


def _share(cut: MeasuredUpdate) -> str:
    low, high = (f"{100 * end:.3g}" if end is not None else "?" for end in (cut.kept_low, cut.kept_high))
    return f"{100 * (cut.kept or 0):.3g} % [{low}, {high}]"


def _extent(difference: float, low: float | None, high: float | None, *, flip: bool) -> str:
    """A difference with its interval; without its sign, where the words say which way it is."""
    ends = (low, high)
    if flip and difference < 0 and low is not None and high is not None:
        difference, ends = -difference, (-high, -low)
    if ends[0] is None or ends[1] is None:
        return f"{difference:.2g}"
    digits = max(2, 1 - int(np.floor(np.log10(max(ends[1] - ends[0], 1e-12)))))
    return f"{difference:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
