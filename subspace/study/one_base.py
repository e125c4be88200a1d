"""Whether all runs of a study were trained on the same base, whatever head each of them began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subspace.errors import ValueRangeError
from subspace.study.paper import StudyPlan
from subspace.study.study_folder import run_record
from subspace.text import shown

__all__ = ["require_one_base"]


def require_one_base(plan: StudyPlan, folder: Path, model: str) -> None:
    """Refuse runs, done or begun, that were trained on another base than the study's, or than each other.

    Parameters
    ----------
    plan, folder : of the study
    model : digest of its model, see `model_sha256`

    Raises
    ------
    ValueRangeError : a run was
    """
    records = {run.name: run_record(folder / "runs" / run.name) for run in plan.runs}
    settings = {name: record.get("settings", {}).get("model_sha256") for name, record in records.items()}
    _require_same({"the study": model, **settings}, folder)
    _require_same({name: _sampled(record) for name, record in records.items()}, folder)


def _sampled(record: Mapping[str, Any]) -> str | None:
    """How runs of older versions know their base, which for a classifier is of its head too: that tells nothing."""
    return None if record.get("task") == "classify" else record.get("computed", {}).get("base")


def _require_same(bases: Mapping[str, str | None], folder: Path) -> None:
    known = {name: base for name, base in bases.items() if base is not None}
    first = next(iter(known), "")
    for name, base in known.items():
        if base != known[first]:
            raise ValueRangeError(
                f"Different base weights: {name} was trained on others than {first}, in "
                f"{shown(folder, longest=1000)}; choose another folder"
            )
