"""What a file of `subspace.study.papers` declares: which claims are tested, on which runs, and how that is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from subspace.study.finding import Finding
    from subspace.study.study import Study
    from subspace.study.study_figures import Picture
    from subspace.study.study_tables import Table
    from subspace.training.job import Job

__all__ = ["Choices", "Outcome", "Paper", "StudyPlan", "StudyRun"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Choices:
    """What a user chooses of a study.

    Attributes
    ----------
    model, data : as ``subspace train`` takes them
    full : whether the larger study is made
    steps : optimiser steps of every run; None for as many as the embedded base needs
    pretraining_text : path of text like what the model was pre-trained on; None for that of the embedded base
    """

    model: str
    data: str | None = None
    full: bool = False
    steps: int | None = None
    pretraining_text: str | None = None


class StudyRun(Protocol):
    """One adapter of a study; a dataclass."""

    @property
    def name(self) -> str:
        """The name of its folder."""

    @property
    def barely(self) -> bool:
        """Whether it has a few steps only."""


class StudyPlan(Protocol):
    """What a study trains, and on what."""

    @property
    def paper(self) -> str:
        """The name of the paper whose claims are tested."""

    @property
    def model(self) -> str:
        """The model, as ``subspace train`` takes it."""

    @property
    def data(self) -> str | None:
        """The data, as ``subspace train`` takes them; None for Python's own help topics."""

    @property
    def full(self) -> bool:
        """Whether it is the larger study."""

    @property
    def runs(self) -> tuple[Any, ...]:
        """The runs, each a `StudyRun`."""

    def steps(self, run: Any) -> int:
        """Return how many steps a run has."""

    def batch(self, run: Any) -> int:
        """Return how many windows a step of a run has."""

    def targets(self, run: Any) -> tuple[str, ...]:
        """Return the patterns of the layers that a run changes."""

    def job(self, run: Any, folder: Path) -> Job:
        """Return the training job of a run; `folder` is the study's."""

    def prepare(self, folder: Path) -> None:
        """Write into the study's folder what its runs read and no machine has."""

    def settings(self) -> dict[str, object]:
        """Return everything that must be the same for a study to go on, as plain values by name."""

    def words(self) -> list[str]:
        """Return the words of the command that makes the study, after ``subspace reproduce``, without its folder."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What follows from the trained runs of a study.

    Attributes
    ----------
    measures : what was measured
    findings, tables, pictures : what follows from that
    runs : what the study's record says of each run
    record : further entries of the study's record
    """

    measures: Any
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    runs: tuple[Mapping[str, Any], ...]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Paper:
    """A paper whose claims are tested.

    Attributes
    ----------
    name : that of its file, by which it is asked for
    about : what is tested, for help texts and the page
    planned : what a user chooses -> what is trained; raises `SubspaceError` where that cannot be
    outcome : (plan, folder of the runs, progress) -> what follows, once all runs are done
    controls : key of each control -> what a page calls it
    run_row : entry of a run in the record -> the first columns of its row in the table of runs
    commands : the study -> words of the commands that repeat its measures one by one, after ``subspace``
    claims : what the headline counts, such as "claim of the paper"
    """

    name: str
    about: str
    planned: Callable[[Choices], Any]
    outcome: Callable[[Any, Path, Progress | None], Outcome]
    controls: Mapping[str, str]
    run_row: Callable[[Mapping[str, Any]], dict[str, Any]]
    commands: Callable[[Study], list[list[str]]] = field(default=lambda study: [])
    claims: tuple[str, str] = ("claim of the paper", "claims of the paper")
