"""The result of `track`: how an adapter came to be, over the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.flags import Flag
from subspace.results.columns import column, row
from subspace.results.nulls import ISOTROPIC
from subspace.results.result import Result, Row
from subspace.results.trajectory import ALL, Run, Saved, Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from typing_extensions import Self

__all__ = ["StepRow", "Track", "rows_of"]


@row
class StepRow(Row):
    """One checkpoint of one side of a module, or of all modules together.

    phi compares the span of the leading directions of a side with that at another checkpoint: 1 if one contains the
    other. Levels "isotropic" are of isotropic random spans of the same dimensions; those of a control are of the
    checkpoint and a module of another job.
    """

    with_base: bool = False

    run: int = column("Number of the run, from 0", usual=0)
    checkpoint: int = column("Number of the checkpoint in its run, from 0", place="record")
    step: int | None = column("Optimiser step, or epoch, of the checkpoint; None where nothing says it")
    module: str = column("Name of the module, or all modules together", usual=ALL)
    side: str = column(
        "What is compared: a (rows of A), b (columns of B), left or right (leading singular vectors of delta_W)"
    )
    init: str = column(
        "Whether the start, the adapter before training, was kept or removed", usual="kept", default="kept"
    )
    null: str = column("What the isotropic levels are of", place="record", default=ISOTROPIC)
    directions: int = column(
        "How many leading directions phi is of, at the last checkpoint: on sides a and b all, on left and right those "
        "with 90 % of the energy, or as many as asked for; of all modules together their sum",
        label="k",
        drop=5,
    )
    to_final: float | None = column(
        "phi with the last checkpoint of the run", label="phi to final", range="[0, 1]"
    )
    to_final_isotropic: float | None = column(
        "Mean of to_final for isotropic random spans", label="isotropic", range="[0, 1]"
    )
    to_final_isotropic_sd: float | None = column(
        "Standard deviation of to_final for isotropic random spans", place="record"
    )
    to_final_control: float | None = column(
        "Mean phi with the last checkpoint of modules of another job: with the same input on sides a and right where "
        "there are any, otherwise of the same kind in the layers beside",
        label="control",
        range="[0, 1]",
    )
    to_next: float | None = column(
        "phi with the next checkpoint; None of the last", label="to next", range="[0, 1]", drop=2
    )
    to_next_isotropic: float | None = column(
        "Mean of to_next for isotropic random spans", range="[0, 1]", place="record"
    )
    to_next_control: float | None = column(
        "The same of to_next: with the next checkpoint of modules of another job",
        range="[0, 1]",
        place="record",
    )
    from_start: float | None = column(
        "phi with the start of the run: step 0, or else the first checkpoint; None where the start has no such "
        "directions, as B = 0 has none",
        label="to start",
        range="[0, 1]",
        drop=3,
    )
    from_start_isotropic: float | None = column(
        "Mean of from_start for isotropic random spans", range="[0, 1]", place="record"
    )
    from_start_control: float | None = column(
        "The same of from_start: with the start of modules of another job", range="[0, 1]", place="record"
    )
    moved: float | None = column(
        "How far A (side a) or B (side b) is from the start, as a multiple of the norm of the start",
        range="[0, inf)",
        drop=4,
        default=None,
    )
    cosine: float | None = column(
        "Signed cosine of delta_W and the last one", label="cosine ΔW", range="[-1, 1]", default=None
    )
    cosine_isotropic_sd: float | None = column(
        "Standard deviation of the cosine of isotropic random updates, whose mean is 0",
        place="record",
        default=None,
    )
    norm: float | None = column(
        "||delta_W||_F, the scale included", label="‖ΔW‖", range="[0, inf)", default=None
    )
    born: int = column(
        "How many directions of the last checkpoint are there from this one on, beyond the 99 % quantile of isotropic "
        "random directions",
        drop=1,
    )
    intruders: int | None = column(
        "Intruder dimensions of W + delta_W; None where the base has no such weight, and no column without a base",
        absent=lambda row: not row.with_base,
        default=None,
    )
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True, eq=False, repr=False)
class Track(Result[StepRow]):
    """How an adapter came to be, over the checkpoints of one run or more.

    Attributes
    ----------
    runs : each with its checkpoints, and the trajectory of every module
    modules : one row per run, side and checkpoint of all modules together; by module one for each
    by : "total" or "module"
    left_out : checkpoints that could not be read
    level : of the births, 0.01
    epsilon, k : of intruder dimensions, as `intruders` takes them; None without the base
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.track/1"
    ROW: ClassVar[type[Row]] = StepRow
    KEYS: ClassVar[tuple[str, ...]] = ("module", "side", "step", "init", "run")

    runs: tuple[Run, ...]
    modules: tuple[StepRow, ...]
    by: str = "total"
    left_out: tuple[str, ...] = ()
    level: float = 0.01
    epsilon: float | None = None
    k: int | None = None
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.track/1``: runs, each with its modules."""
        return {
            "schema": self.SCHEMA,
            "headline": self.headline(),
            "level": self.level,
            "epsilon": self.epsilon,
            "k": self.k,
            "runs": [run.document() for run in self.runs],
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }

    def headline(self) -> str:
        """Return how soon each run pointed where it ended, in a sentence or two each."""
        return " ".join(self.facts())

    def facts(self) -> tuple[str, ...]:
        """Return the sentences of the headline."""
        from subspace.results.track_headline import track_facts

        return track_facts(self)

    def selected(
        self, *, modules: Sequence[str] = (), sort: str | None = None, top: int | None = None
    ) -> Self:
        """Return the same result with some of its rows; with the modules that match, rows are of these one by one."""
        if not modules:
            return super().selected(sort=sort, top=top)
        each = replace(self, by="module", modules=rows_of(self.runs, "module"))
        found = super(Track, each).selected(modules=modules, sort=sort, top=top)
        names = {name.module for name in super(Track, each).selected(modules=modules).modules}
        runs = tuple(
            replace(run, modules=tuple(one for one in run.modules if one.module in names))
            for run in self.runs
        )
        return replace(found, runs=runs)

    def plot(self, ax: Axes | None = None, *, side: str | None = None, run: int = 0) -> Axes:
        """Draw phi with the last checkpoint against the step and return the axes; see `subspace.plots.trajectory`."""
        from subspace.plots import trajectory

        axes: Axes = trajectory(self, ax=ax, side=side, run=run)
        return axes


_OF_STEP = {each.name for each in StepRow.COLUMNS} & {each.name for each in fields(Trajectory)} - {"flags"}


def rows_of(runs: Sequence[Run], by: str) -> tuple[StepRow, ...]:
    """One row per checkpoint of the trajectories of some runs.

    Parameters
    ----------
    by : "total" or "module"
    """
    based = any(each.intruders for run in runs for each in run.modules)
    return tuple(
        _row(number, n, saved, each, based)
        for number, run in enumerate(runs)
        for each in (run.total if by == "total" else run.modules)
        for n, saved in enumerate(run.checkpoints)
    )


def _row(run: int, n: int, saved: Saved, trajectory: Trajectory, based: bool) -> StepRow:
    values: Mapping[str, Any] = {name: _at(getattr(trajectory, name), n) for name in _OF_STEP}
    return StepRow(with_base=based, run=run, checkpoint=n, step=saved.step, flags=trajectory.flags, **values)


def _at(value: Any, n: int) -> Any:
    if not isinstance(value, tuple):
        return value
    return value[n] if n < len(value) else None
