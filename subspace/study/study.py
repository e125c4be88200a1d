"""A study from its plan to everything that it leaves in its folder, except for the page."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace import __version__
from subspace.checkpoints.atomic_writing import write_whole
from subspace.results.cells import plain
from subspace.results.csv_text import as_csv
from subspace.study import other_code
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
    from subspace.results.comparison import Comparison
    from subspace.study.finding import Finding
    from subspace.study.measurements import Measures
    from subspace.study.plan import Plan
    from subspace.study.study_figures import Picture
    from subspace.study.study_tables import Table
    from subspace.study.trio import Trio

__all__ = ["Study", "conduct", "settings_of"]

Progress = Callable[[int, int], None]
Contents = dict[Path, bytes]


@dataclass(frozen=True, eq=False)
class Study:
    """A finished study.

    Attributes
    ----------
    folder : where everything is
    record : content of its ``study.json``
    measures : what was measured
    findings, tables, pictures : what follows from that
    files : the files that were written
    """

    folder: Path
    record: Mapping[str, Any]
    measures: Measures
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    files: tuple[Path, ...]


def conduct(
    plan: Plan,
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


def settings_of(plan: Plan) -> dict[str, object]:
    """Return everything that must be the same for a study to go on, with the digests of its model and its data.

    Raises
    ------
    FileError, FormatError : they cannot be read
    """
    from subspace.training.content import content_of
    from subspace.training.data import load_examples

    return plan.settings() | content_of(plan.model, load_examples(plan.data))


def _measured(
    plan: Plan, folder: Path, record: dict[str, Any], progress: Progress | None
) -> tuple[Study, Contents]:
    """The study, and its figures and tables as files."""
    from subspace.study.findings import findings
    from subspace.study.measurements import measured
    from subspace.study.study_tables import tables

    began, worked = time.monotonic(), _processor_seconds()
    measures = measured(plan, folder / "runs", progress=progress)
    results = findings(measures), tables(measures)
    pages, contents = _drawn(measures, folder)
    contents |= {folder / f"{table.key}.csv": as_csv(table.rows).encode() for table in results[1]}
    spent = {
        **record["seconds"],
        "analysis": time.monotonic() - began,
        "analysis_processor": _processor_seconds() - worked,
    }
    record = _document(record, measures, *results, spent)
    return Study(folder, record, measures, *results, tuple(pages), ()), contents


def _trained(
    plan: Plan, folder: Path, record: dict[str, Any], workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Train, and return the record with the time that it took, which is written also when it is interrupted."""
    runs, record = folder / "runs", {**record, "seconds": dict(record.get("seconds", {}))}
    if all(run_record(runs / run.name).get("done") for run in plan.runs):
        return record
    began, worked = time.monotonic(), _processor_seconds()
    record["done"] = False
    if plan.headers:
        other_code.write(folder)
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


def _drawn(measures: Measures, folder: Path) -> tuple[list[Picture], Contents]:
    from subspace.plots.figure_files import contents
    from subspace.study.study_figures import pictures

    pages = list(pictures(measures))
    files: Contents = {}
    for page in pages:
        files |= contents(page.figure, folder / "figures" / f"{page.name}.png")
    return pages, files


def _document(
    record: Mapping[str, Any],
    measures: Measures,
    found: tuple[Finding, ...],
    drawn: tuple[Table, ...],
    spent: Mapping[str, float],
) -> dict[str, Any]:
    plan = measures.plan
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
            "runs": [_run(measures, run.name) for run in plan.runs],
            "findings": [asdict(each) for each in found],
            "tables": {table.key: list(table.rows) for table in drawn},
            "comparisons": _pairs(measures.here),
            "controls": {name: _control(trio) for name, trio in measures.controls.items()},
            "doses": {name: _comparison(each) for name, each in measures.doses.items()},
            "against_base": {name: _comparison(each) for name, each in measures.against_base.items()},
            "amplification": {name: each.records() for name, each in measures.amplified.items()},
        }
    )
    return document


def _base(plan: Plan) -> dict[str, Any]:
    """Where the base weights are, and how many numbers they are."""
    from subspace.adapters import load_base
    from subspace.study.plan import base_folder

    path = base_folder(plan.model)
    layout = load_base(path).tensors.layout
    return {"path": str(path), "parameters": sum(math.prod(info.shape) for info in layout.values())}


def _pairs(trio: Trio) -> dict[str, Any]:
    return {"ranks": _comparison(trio.ranks), "seeds": _comparison(trio.seeds)}


def _control(trio: Trio) -> dict[str, Any]:
    """The same of a control; its low rank and r = 64 are those of `amplification`."""
    return {
        **_pairs(trio),
        "against_base": _comparison(trio.against_base),
        "amplification": {name: each.records() for name, each in (("low", trio.low), ("r64", trio.high))},
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "headline": comparison.headline(),
        "cosine": comparison.cosine,
        "level": comparison.level,
        "modules": comparison.records(),
        "notes": comparison.notes,
    }


def _run(measures: Measures, name: str) -> dict[str, Any]:
    run, record = measures.plan.run(name), measures.runs[name]
    shared = {
        key: record.get(key)
        for key in ("model_type", "task", "data", "trainable", "held_out", "computed", "settings")
    }
    return {**asdict(run), "targets": measures.plan.targets(run), **shared}
