"""How well forecasts of a merge did where the loss was measured afterwards: figures to quote beside a forecast.

They are those of ``subspace reproduce --paper merging``, kept next to this file.
``python -m subspace.results.forecast_reliability STUDY.json`` takes them over from the record of a finished study.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "Reliability", "reliabilities", "reliability", "stored"]

COMMAND = "subspace reproduce --paper merging"
_FILE = Path(__file__).with_suffix(".json")
_WHAT = {
    "harm": "how far a merge raises the loss of a task",
    "transfer": "what the adapter of one task does for another",
}
_VERDICTS = {
    "agrees": "it foretells that",
    "agrees in part": "it foretells that no better than the norms",
    "holds, but so does noise": "shuffled tasks do as well",
    "differs": "it fails",
}


@dataclass(frozen=True)
class Reliability:
    """How well one number foretold one outcome, over tasks that took no part in the fit.

    Attributes
    ----------
    predictor, label : its name in a forecast, and in words
    outcome : "harm", the rise of a task's loss by merging, or "transfer", what one task's adapter does for another
    verdict : by the study's rule: "agrees", "agrees in part" (no better than the norms), "differs" (it fails), ...
    spearman, kendall, p : rank correlations over ordered pairs of tasks, and p of the first by permuting tasks
    within : mean over tasks of the Spearman correlation over what it is merged with
    error, error_linear : mean absolute error for a task left out of a monotone fit and of a line, in shares of the gain
    error_nothing, error_norms : those of the mean of the other tasks, and of the norm ratio alone
    wins_norms : share of the tasks for which the error is below that of the norms
    error_triples : of sums of three by the fits to pairs; None of transfer
    n : number of samples
    """

    predictor: str
    label: str
    outcome: str
    verdict: str
    spearman: float
    kendall: float
    p: float
    within: float
    error: float
    error_linear: float
    error_nothing: float
    error_norms: float
    wins_norms: float
    error_triples: float | None
    n: int

    def sentence(self) -> str:
        """Return what to know of it, in one sentence."""
        norms = "" if self.predictor == "norms" else f"of the norm ratio {self.error_norms:.2f} and "
        verdict = _VERDICTS.get(self.verdict, self.verdict)
        if self.predictor == "norms" and self.verdict == "agrees in part":
            verdict = "it foretells that, but not for every task"
        return (
            f"Measured on eight small tasks, the rank correlation of the {self.label} with {_WHAT[self.outcome]} is "
            f"{self.spearman:+.2f}, and its error for a task left out {self.error:.2f} of the gain, that {norms}of no "
            f"forecast {self.error_nothing:.2f}: {verdict}"
        )


@cache
def stored() -> Mapping[str, Any]:
    """Return the whole file: which study, and its rows."""
    content: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return content


def reliabilities(outcome: str | None = None) -> tuple[Reliability, ...]:
    """Return the figures of every number that was tried, or of one outcome."""
    rows = (Reliability(**row) for row in stored()["rows"])
    return tuple(row for row in rows if outcome in (None, row.outcome))


def reliability(predictor: str, outcome: str = "harm") -> Reliability:
    """Return the figures of one number: "norms", "cosine", "energy_ratio", "overlap_left", "sti", ...

    Raises
    ------
    KeyError : it was not tried
    """
    for row in reliabilities(outcome):
        if row.predictor == predictor:
            return row
    raise KeyError(predictor)


def of_study(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of the content of a ``study.json``."""
    settings = record["settings"]
    names = [each.name for each in fields(Reliability)]
    return {
        "command": COMMAND,
        "version": record["version"],
        "finished": record["finished"],
        "model": settings["model"],
        "steps": settings["steps"],
        "rank": settings["rank"],
        "tasks": settings["tasks"],
        "rows": [{name: row[name] for name in names} for row in record["reliability"]],
    }


if __name__ == "__main__":
    found = of_study(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    _FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
