"""The command lines that repeat a study, for people to read and to run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.study.plan import DEFAULT_STEPS, EMBEDDED
from subspace.study.workers import job_of
from subspace.training.recipe import Recipe

if TYPE_CHECKING:
    from subspace.study.study import Study
    from subspace.training.job import Job

__all__ = ["commands", "train_words"]


def train_words(job: Job, out: Path) -> list[str]:
    """Return the words of the command that trains a LoRA job of a study, after ``subspace``."""
    how, method = job.recipe, job.method.document()
    data = (job.data,) if isinstance(job.data, str) else job.data or ()
    words: list[Any] = ["train", "--model", job.model, *(word for path in data for word in ("--data", path))]
    words += ["--rank", method["r"], "--seed", how.seed, "--data-seed", how.data_seed, "--steps", how.steps]
    words += ["--batch", how.batch, "--length", how.length, "--lr", how.lr, "--alpha", method["alpha"]]
    for target in job.targets:
        words += ["--targets", target]
    if method["groups"]:
        words += ["--groups", _groups(method["groups"]), "--format", job.format]
    words += ["--held-out", how.held_out] if how.held_out != Recipe.held_out else []
    return [str(word) for word in (*words, "--threads", job.threads, "--no-accounts", "-o", out)]


def _groups(groups: tuple[bool, ...]) -> str:
    return ",".join(str(int(on)) for on in groups)


def commands(study: Study) -> list[str]:
    """Return command lines that repeat a study: all of it, and then its parts one by one."""
    plan, folder = study.measures.plan, str(study.folder)
    words = ["reproduce"]
    words += ["--model", plan.model] if plan.model != EMBEDDED else []
    words += ["--data", plan.data] if plan.data is not None else []
    words += ["--steps", str(plan.recipe.steps)] if plan.recipe.steps != DEFAULT_STEPS else []
    words += ["--full"] if plan.full else []
    lines = [[*words, "-o", folder]]
    for run in plan.runs:
        lines.append(train_words(job_of(plan, run, study.folder), study.folder / "runs" / run.name))
    low, high, other = (f"{folder}/runs/{name}" for name in ("r8", "r64", "r64-seed1"))
    scrambled = f"{folder}/runs/scrambled-r64"
    groups = plan.groups(plan.runs[0])
    fused = ["--enable-lora", _groups(groups)] if groups else []
    pairs = ((low, high, "fig3"), (low, scrambled, "fig3"), (high, other, "fig4"), (high, scrambled, "fig4"))
    for first, second, figure in pairs:
        starts = ["--init", f"{first}/start", "--init", f"{second}/start"] if not fused else []
        lines.append(["compare", first, second, *starts, *fused, "--figure", figure])
    base = EMBEDDED if plan.model == EMBEDDED else study.record["base"]["path"]
    lines.append(["compare", base, low, *fused, "--figure", "fig8"])
    ranks = {run.name: run.rank for run in plan.runs}
    for name in study.measures.amplified:
        scale = ["--scale", str(plan.recipe.alpha / ranks[name])] if fused else []
        lines.append(["amplify", "--base", base, "--delta", f"{folder}/runs/{name}", *fused, *scale])
    return [shlex.join(["subspace", *line]) for line in lines]
