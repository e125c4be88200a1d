"""Reproduce the claims of a paper on adapters trained here, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.number_types import Whole
from subspace.cli.progress import Progress
from subspace.study import papers
from subspace.study.plan import DEFAULT_STEPS
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.study.study import Study

__all__ = ["command"]

_DEFAULT_FOLDER = "reproduction"


@click.command("reproduce")
@click.option(
    "-o",
    "--out",
    "folder",
    metavar="DIR",
    help="Directory for the adapters, the figures, the tables and the page.  [default: reproduction; of another paper "
    "than lora with its name, such as reproduction-rank]",
)
@click.option(
    "--paper",
    type=click.Choice(papers.names()),
    default=papers.DEFAULT,
    show_default=True,
    help="Which claims are tested. lora: section 7 of the LoRA paper; intruders: those of arXiv 2410.21228 on intruder "
    "dimensions and forgetting; merging: what foretells how far a merge raises the loss of each task; rank: what rules "
    "of thumb advise as a rank, against measured loss.",
)
@click.option(
    "--full",
    is_flag=True,
    help="More runs. lora: also tables 5 and 6, and how sharing falls from the same text to random characters, in "
    "about four times the time; intruders and rank: every run from a second seed as well, in up to twice the time; "
    "merging: that, and all sums of three.",
)
@click.option(
    "--model",
    default="embedded",
    show_default=True,
    help="Base model: a Hugging Face directory or hub id, hf://org/name (extra hf), whose q, k, v and o are layers of "
    "their own, or a GPT-2; the word embedded for the small model inside this package.",
)
@click.option(
    "--data",
    metavar="PATH",
    help="Training data, as for subspace train --data; for merging a folder with one text file for each of 4 to 12 "
    "tasks.  [default: Python's own help topics; for merging eight texts that come with Python and NumPy]",
)
@click.option(
    "--pretraining-text",
    metavar="PATH",
    help="Text like what the base model was pre-trained on, on which --paper intruders measures forgetting.  "
    "[default: for the embedded model, the part of its own text that was held out]",
)
@click.option(
    "--steps",
    type=Whole(1),
    help=f"Number of optimiser steps of every run.  [default: {DEFAULT_STEPS}; 100 for intruders]",
)
@click.option(
    "--workers",
    type=Whole(1),
    help="Number of runs to train at the same time.  [default: one per core, at most 2]",
)
def command(
    folder: str | None,
    paper: str,
    full: bool,
    model: str,
    data: str | None,
    pretraining_text: str | None,
    steps: int | None,
    workers: int | None,
) -> None:
    """Reproduce section 7 of the LoRA paper, or another paper's claims, on adapters that are trained here, offline.

    Trains one adapter of r = 8 and two of r = 64, draws the paper's figures 3, 4, 6, 7 and 8 and table 7, tests
    each of the paper's claims by a stated rule, and writes one page, DIR/index.html. Each rule is also applied to
    controls that learned little or nothing: adapters of scrambled text, barely trained ones and random ones; a
    claim that they meet too is no finding. With the embedded model this takes less than three minutes on two
    ordinary cores; --full and larger models take longer. Ctrl-C saves and stops; the same command then resumes, and
    only draws again if all runs are done.

    --paper intruders trains LoRA of three ranks and full fine-tuning at three learning rates each, counts intruder
    dimensions, measures forgetting and scales the intruders down. --paper rank trains q and v at ranks 1 to 64, cuts
    r = 64 to each of them and to what rules of thumb advise, and measures the loss. --paper merging trains eight small
    tasks, adds all pairs of them, and tests which numbers foretell the loss of each task afterwards. All take longer.

    \b
    Examples:
      subspace reproduce
      subspace reproduce --full -o study/
      subspace reproduce --paper intruders
    """
    from subspace.report import page_content
    from subspace.study.paper import Choices
    from subspace.study.study import conduct
    from subspace.study.workers import cores
    from subspace.training.stop_request import terminable

    at_once = workers if workers is not None else min(2, cores())
    with terminable(), Progress("reproducing") as progress:
        plan = papers.named(paper).planned(Choices(model, data, full, steps, pretraining_text))
        study = conduct(
            plan,
            Path(folder or _DEFAULT_FOLDER + (f"-{paper}" if paper != papers.DEFAULT else "")),
            workers=at_once,
            training=lambda done, total: progress(done, total, f"training {len(plan.runs)} adapters"),
            measuring=lambda done, total: progress(done, total, "measuring"),
            also=page_content,
        )
    _echo(study)
    for path in study.files:
        click.echo(f"wrote {shown(path, longest=1000)}", err=True)


def _echo(study: Study) -> None:
    """Print the findings with their verdicts, and the outcome in one sentence."""
    from subspace.report.page import headline

    names = study.paper.controls
    width = max(len(finding.verdict) for finding in study.findings)
    for finding in study.findings:
        click.echo(f"{finding.verdict.ljust(width)}  {finding.claim} ({finding.where})")
        controls = [f"{names[name]} {met.verdict}" for name, met in finding.controls.items()]
        verdicts = [f"here {finding.here.verdict}", *controls] if controls else []
        for line in (finding.here.says, "; ".join(verdicts), finding.inputs):
            if line:
                click.echo(f"{'':{width}}  {line}")
        for name, null in finding.nulls.items():
            click.echo(f"{'':{width}}  {name}: {null}")
    click.echo()
    click.echo(headline(study.record, study.paper.claims))
