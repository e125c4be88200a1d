"""The command lines that repeat a study, for people to read and to run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.training.recipe import Recipe

if TYPE_CHECKING:
    from subspace.study.study import Study
    from subspace.training.job import Job

__all__ = ["commands", "train_words"]


def train_words(job: Job, out: Path) -> list[str]:
    """Return the words of the command that trains a job of a study, after ``subspace``."""
    how = job.recipe
    data = (job.data,) if isinstance(job.data, str) else job.data or ()
    words: list[Any] = ["train", "--model", job.model, *(word for path in data for word in ("--data", path))]
    words += _method_words(job)
    words += ["--seed", how.seed, "--data-seed", how.data_seed, "--steps", how.steps]
    words += ["--batch", how.batch, "--length", how.length, "--lr", how.lr]
    words += ["--held-out", how.held_out] if how.held_out != Recipe.held_out else []
    return [str(word) for word in (*words, "--threads", job.threads, "--no-accounts", "-o", out)]


def _method_words(job: Job) -> list[Any]:
    """The words of a method, of LoRA or full fine-tuning, and of what it changes."""
    method = job.method.document()
    words: list[Any] = [word for target in job.targets for word in ("--targets", target)]
    if method["kind"] != "lora":
        return ["--method", method["kind"], *words]
    words = ["--rank", method["r"], "--alpha", method["alpha"], *words]
    words += ["--rslora"] if method["rslora"] else []
    groups = method["groups"]
    return [*words, *(["--groups", _groups(groups), "--format", job.format] if groups else [])]


def _groups(groups: tuple[bool, ...]) -> str:
    return ",".join(str(int(on)) for on in groups)


def commands(study: Study) -> list[str]:
    """Return command lines that repeat a study: all of it, and then its parts one by one."""
    plan, folder = study.plan, study.folder
    lines = [["reproduce", *plan.words(), "-o", str(folder)]]
    lines += [train_words(plan.job(run, folder), folder / "runs" / run.name) for run in plan.runs]
    lines += study.paper.commands(study)
    return [shlex.join(["subspace", *line]) for line in lines]
