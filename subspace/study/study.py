"""A study from its plan to everything that it leaves in its folder, except for the page."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace import __version__
from subspace.checkpoints.atomic_writing import write_whole
from subspace.results.cells import plain
from subspace.results.csv_text import as_csv
from subspace.study import papers
from subspace.study.one_base import require_one_base
from subspace.study.study_folder import (
    claimed,
    record_content,
    run_record,
    saying_what_is_saved,
    write_record,
)
from subspace.study.workers import train_all
from subspace.training.stop_request import terminable

if TYPE_CHECKING:
    from subspace.study.finding import Finding
    from subspace.study.paper import Outcome, Paper, StudyPlan
    from subspace.study.study_figures import Picture
    from subspace.study.study_tables import Table

__all__ = ["Study", "conduct", "settings_of"]

Progress = Callable[[int, int], None]
Contents = dict[Path, bytes]


@dataclass(frozen=True, eq=False)
class Study:
    """A finished study.

    Attributes
    ----------
    folder : where everything is
    plan : what was trained
    record : content of its ``study.json``
    measures : what was measured
    findings, tables, pictures : what follows from that
    files : the files that were written
    """

    folder: Path
    plan: StudyPlan
    record: Mapping[str, Any]
    measures: Any
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    files: tuple[Path, ...]

    @property
    def paper(self) -> Paper:
        """The paper whose claims are tested."""
        return papers.named(self.plan.paper)


def conduct(
    plan: StudyPlan,
    folder: Path,
    *,
    workers: int,
    training: Progress | None = None,
    measuring: Progress | None = None,
    also: Callable[[Study], Contents] = lambda _: {},
) -> Study:
    """Train the runs of a plan that are not done yet, measure them, and write figures, tables and ``study.json``.

    What is measured and drawn takes the place of that of an earlier study in one step.

    Parameters
    ----------
    plan : what is trained
    folder : a new or empty one, or that of a study with the same settings, which is resumed
    workers : how many runs are trained at once
    training, measuring : called with (done, in all), in steps and in measures
    also : the study, which is not written yet -> path and content of what is written with it, such as a page

    Raises
    ------
    FileError : the folder holds something else, cannot be written, or another process works in it
    ValueRangeError : the study in it has other settings
    SubspaceError : a run failed
    KeyboardInterrupt : it was stopped, by Ctrl-C or SIGTERM, and can go on; the message says what is saved
    """
    settings = settings_of(plan)
    with terminable(), saying_what_is_saved(plan, folder), claimed(folder, settings) as begun:
        require_one_base(plan, folder, str(settings["model_sha256"]))
        record = _trained(plan, folder, begun, workers, training)
        require_one_base(plan, folder, str(settings["model_sha256"]))
        study, contents = _measured(plan, folder, record, measuring)
        contents = {**contents, **also(study), **record_content(folder, study.record)}
        write_whole(contents)
    return replace(study, files=tuple(contents))


def settings_of(plan: StudyPlan) -> dict[str, object]:
    """Return everything that must be the same for a study to go on, with the digests of its model and its data.

    Raises
    ------
    FileError, FormatError : they cannot be read
    """
    from subspace.training.content import content_of
    from subspace.training.data import load_examples

    return plan.settings() | content_of(plan.model, load_examples(plan.data))


def _measured(
    plan: StudyPlan, folder: Path, record: dict[str, Any], progress: Progress | None
) -> tuple[Study, Contents]:
    """The study, and its figures and tables as files."""
    began, worked = time.monotonic(), _processor_seconds()
    outcome = papers.named(plan.paper).outcome(plan, folder / "runs", progress)
    contents = _drawn(outcome.pictures, folder)
    contents |= {folder / f"{table.key}.csv": as_csv(table.rows).encode() for table in outcome.tables}
    spent = {
        **record["seconds"],
        "analysis": time.monotonic() - began,
        "analysis_processor": _processor_seconds() - worked,
    }
    record = _document(plan, record, outcome, spent)
    found = outcome.findings, outcome.tables, outcome.pictures
    return Study(folder, plan, record, outcome.measures, *found, ()), contents


def _trained(
    plan: StudyPlan, folder: Path, record: dict[str, Any], workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Train, and return the record with the time that it took, which is written also when it is interrupted."""
    runs, record = folder / "runs", {**record, "seconds": dict(record.get("seconds", {}))}
    if all(run_record(runs / run.name).get("done") for run in plan.runs):
        return record
    began, worked = time.monotonic(), _processor_seconds()
    record["done"] = False
    plan.prepare(folder)
    try:
        train_all(plan, runs, workers=workers, progress=progress)
    finally:
        spent = record["seconds"]
        for key, seconds in (("", time.monotonic() - began), ("_processor", _processor_seconds() - worked)):
            spent[f"training{key}"] = spent.get(f"training{key}", 0.0) + seconds
        write_record(folder, record)
    return record


def _processor_seconds() -> float:
    """Seconds that processors have worked for this process and for those of its children that have ended."""
    return sum(os.times()[:4])


def _drawn(pictures: Sequence[Picture], folder: Path) -> Contents:
    from subspace.plots.figure_files import contents

    files: Contents = {}
    for picture in pictures:
        files |= contents(picture.figure, folder / "figures" / f"{picture.name}.png")
    return files


def _document(
    plan: StudyPlan, record: Mapping[str, Any], outcome: Outcome, spent: Mapping[str, float]
) -> dict[str, Any]:
    document: dict[str, Any] = plain(
        {
            "schema": record["schema"],
            "version": __version__,
            "settings": record["settings"],
            "base": _base(plan),
            "full": plan.full,
            "done": True,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": dict(spent),
            "runs": list(outcome.runs),
            "findings": [asdict(each) for each in outcome.findings],
            "tables": {table.key: list(table.rows) for table in outcome.tables},
            **outcome.record,
        }
    )
    return document


def _base(plan: StudyPlan) -> dict[str, Any]:
    """Where the base weights are, and how many numbers they are."""
    from subspace.adapters import load_base
    from subspace.study.plan import base_folder

    path = base_folder(plan.model)
    layout = load_base(path).tensors.layout
    return {"path": str(path), "parameters": sum(math.prod(info.shape) for info in layout.values())}
