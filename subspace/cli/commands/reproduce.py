"""``subspace reproduce``: section 7 of the paper on a model that is trained for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.progress import Progress
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.study.study import Study

__all__ = ["command"]


@click.command("reproduce")
@click.option(
    "-o",
    "--out",
    "folder",
    default="reproduction",
    show_default=True,
    metavar="DIR",
    help="Where all of it goes.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Tables 5 and 6 too: nine runs more, about four times the time.",
)
@click.option(
    "--model",
    default="embedded",
    show_default=True,
    metavar="M",
    help="A Hugging Face directory or hub id (extra hf) whose q, k, v and o are layers of their own, or a GPT-2; "
    "embedded is the small model inside this package.",
)
@click.option(
    "--data", metavar="D", help="What subspace train --data takes. Default: Python's own help topics."
)
@click.option("--steps", type=click.IntRange(1), help="Of every run. Default: what the embedded model needs.")
@click.option(
    "--workers", type=click.IntRange(1), help="Runs trained at once. Default: one per core, at most two."
)
def command(
    folder: str, full: bool, model: str, data: str | None, steps: int | None, workers: int | None
) -> None:
    """Reproduce section 7 of the LoRA paper on a model that is trained on the spot, offline.

    Trains r = 8 and twice r = 64, draws the paper's figures 3, 4, 6, 7 and 8 and table 7, tests each of its claims by a
    stated rule beside chance, and writes all of it as one page, DIR/index.html. With the embedded model it takes less
    than three minutes on two cores; --full takes longer, and other models as long as they take. Ctrl-C saves and
    stops; the same command again goes on where it was, and only draws where everything is done.

    \b
    Examples:
      subspace reproduce
      subspace reproduce --full -o study/
    """
    from subspace.report import write_page
    from subspace.study.plan import planned
    from subspace.study.study import conduct
    from subspace.study.workers import cores

    plan = planned(model, data, full=full, steps=steps)
    at_once = workers if workers is not None else min(2, cores())
    with Progress("reproducing") as progress:
        study = conduct(
            plan,
            Path(folder),
            workers=at_once,
            training=lambda done, total: progress(done, total, f"training {len(plan.runs)} adapters"),
            measuring=lambda done, total: progress(done, total, "measuring"),
        )
    page = write_page(study)
    _echo(study)
    for path in (*study.files, page):
        click.echo(f"wrote {shown(path, longest=1000)}", err=True)


def _echo(study: Study) -> None:
    """Print the findings with their verdicts, and the outcome in a sentence."""
    from subspace.report.page import headline

    width = max(len(finding.verdict) for finding in study.findings)
    for finding in study.findings:
        click.echo(f"{finding.verdict.ljust(width)}  {finding.claim} ({finding.where})")
        click.echo(f"{'':{width}}  here: {finding.here}")
        click.echo(f"{'':{width}}  chance: {finding.chance}")
    click.echo()
    click.echo(headline(study.record))
