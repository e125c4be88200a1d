"""What is known of a run: its checkpoints, and a trajectory for every side of every module."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypeAlias

from subspace.flags import Flag
from subspace.results.cells import plain

__all__ = ["ALL", "Birth", "Kind", "Parent", "Run", "Saved", "Trajectory"]

ALL = "all modules"
Kind: TypeAlias = Literal["resumed", "continued", "branch", "common_start"]
Values: TypeAlias = "tuple[float | None, ...]"


class Parent(NamedTuple):
    """What a run began from.

    Attributes
    ----------
    run : number of the other run, from 0
    step : of its checkpoint
    kind : "continued" from its last checkpoint with steps that are counted anew, "branch" from an earlier one,
        "common_start": both began from one random start
    start_z : alignment of the rows of A of the two checkpoints; NaN without rows to permute
    cosine : of their updates; NaN where one is zero
    """

    run: int
    step: int | None
    kind: Kind
    start_z: float
    cosine: float


class Saved(NamedTuple):
    """A checkpoint of a run.

    Attributes
    ----------
    path : of its file or folder
    step : None where nothing says it
    step_source : "name", "trainer_state.json", "run.json", "metadata" or "given"; "" where nothing says it
    start_z : alignment of the rows of its A and that of the checkpoint before; None of the first, and where A has too
        few rows
    cosine : of its update and that of the checkpoint before
    """

    path: str
    step: int | None
    step_source: str
    start_z: float | None = None
    cosine: float | None = None


class Birth(NamedTuple):
    """When a direction of the last checkpoint appears.

    Attributes
    ----------
    direction : its number, from 1 for the leading one
    energy : its share of the squared singular values, in (0, 1]
    born : first checkpoint from which on its squared cosine with the span of the checkpoint stays above the 99 %
        quantile for an isotropic random direction; a number from 0
    half : first checkpoint from which on delta_W has at least half of its final strength along it; None on sides a and
        b, and where the strength is not defined
    """

    direction: int
    energy: float
    born: int
    half: int | None = None


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One side of one module, or of all of them, over the checkpoints of a run: tuples have a value for each.

    Attributes
    ----------
    module, side, init : as in `StepRow`
    d : dimension of the space of the side; None of all modules together
    directions : how many leading directions phi is of, at the last checkpoint
    to_final, to_final_isotropic, to_final_control : as in `StepRow`, and so on
    births : of the directions at the last checkpoint
    control : kind of the control, "same_input" or "layers"
    """

    module: str
    side: str
    init: str
    d: int | None
    directions: int
    to_final: Values
    to_final_isotropic: Values
    to_final_isotropic_sd: Values
    to_final_control: Values
    to_next: Values
    to_next_isotropic: Values
    to_next_control: Values
    from_start: Values
    from_start_isotropic: Values
    from_start_control: Values
    moved: Values
    cosine: Values
    cosine_isotropic_sd: float | None
    norm: Values
    born: tuple[int, ...]
    births: tuple[Birth, ...] = ()
    intruders: tuple[int | None, ...] = ()
    control: str | None = None
    flags: tuple[Flag, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the trajectory as an object of strict JSON."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        document: dict[str, Any] = plain({**found, "births": [birth._asdict() for birth in self.births]})
        return document


@dataclass(frozen=True, eq=False)
class Run:
    """One run.

    Attributes
    ----------
    name : what its checkpoints were found in
    unit : of `steps`, "step" or "epoch"
    checkpoints : in the order of their steps
    start : what `from_start` is measured from: "step_0", "given" or "first_checkpoint"
    modules : of every module, side and init
    total : the same of all modules together, per side and init
    parent : the run that it began from; None where none of the others shows to be that
    resumed : steps at which a second folder goes on with the run
    """

    name: str
    unit: str
    checkpoints: tuple[Saved, ...]
    start: str
    modules: tuple[Trajectory, ...] = ()
    total: tuple[Trajectory, ...] = ()
    parent: Parent | None = None
    resumed: tuple[int | None, ...] = ()

    @property
    def steps(self) -> tuple[int | None, ...]:
        """The step of each checkpoint; None where nothing says it."""
        return tuple(each.step for each in self.checkpoints)

    def step_name(self, n: int) -> str:
        """The n-th checkpoint in words: its step, or that it is the last.

        Examples
        --------
        >>> Run("x", "step", (Saved("a", 500, "name"), Saved("b", None, "")), "first_checkpoint").step_name(1)
        'the last checkpoint'
        """
        step = self.checkpoints[n].step
        if step is not None:
            return f"{self.unit} {step}"
        return "the last checkpoint" if n == len(self.checkpoints) - 1 else f"checkpoint {n + 1}"

    def side(self, side: str, init: str = "kept") -> Trajectory | None:
        """All modules together on one side; None where that was not measured."""
        return next((each for each in self.total if (each.side, each.init) == (side, init)), None)

    def document(self) -> dict[str, Any]:
        """Return the run as an object of strict JSON."""
        document: dict[str, Any] = plain(
            {
                "name": self.name,
                "steps": self.steps,
                "unit": self.unit,
                "start": self.start,
                "from": None if self.parent is None else self.parent._asdict(),
                "resumed": self.resumed,
                "checkpoints": [each._asdict() for each in self.checkpoints],
                "total": [each.document() for each in self.total],
                "modules": [each.document() for each in self.modules],
            }
        )
        return document
