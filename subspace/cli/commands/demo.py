"""Make three small adapters, then compare and draw them: a first look."""

from __future__ import annotations

from pathlib import Path

import click

from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.checkpoints.atomic_writing import write_whole
from subspace.cli.commands.amplify import echo_orientations
from subspace.cli.commands.compare import command as comparing
from subspace.cli.output import echo_table, echo_written
from subspace.cli.progress import Progress
from subspace.cli.wording import in_options
from subspace.plots import presets
from subspace.plots.figure_files import contents
from subspace.text import shown
from subspace.training.demo import LESSONS, make, require_own_folder

__all__ = ["command"]


@click.command("demo")
@click.option(
    "-o",
    "--out",
    "folder",
    default="demo",
    show_default=True,
    metavar="DIR",
    help="Folder for the adapters, their base weights and the figures.",
)
def command(folder: str) -> None:
    """Make three small adapters that were taught something known, and show that the analysis finds it.

    A base of linear layers is taught an update of rank 3 in every q_proj and of rank 1 in every v_proj, with
    r = 8 and r = 64 and different seeds. The comparison should find shared dimensions of 3 and 1, and no more.

    \b
    Example:
      subspace demo -o somewhere/
    """
    require_own_folder(folder)
    with Progress("training three adapters") as progress:
        paths = make(folder, progress=progress)
    taught = ", ".join(f"{len(strengths)} in every {name}" for name, strengths in LESSONS.items())
    click.echo(f"Taught: updates of rank {taught}. Three adapters and their base are in {shown(folder)}.\n")
    ranks = compare(paths["a_r8"], paths["a_r64"])
    seeds = compare(paths["a_r64"], paths["b_r64"])
    place = shown(folder, longest=1000)
    click.echo(f"$ subspace compare {place}/a_r8 {place}/a_r64 --figure fig3 -o {place}")
    echo_table(ranks, facts=[in_options(fact, comparing) for fact in ranks.facts()])
    click.echo(f"\n$ subspace amplify --base {place}/base.safetensors --delta {place}/a_r8")
    factors = amplify(paths["base"], paths["a_r8"])
    echo_table(factors)
    echo_orientations(factors)
    click.echo()
    drawn: dict[Path, bytes] = {}
    for result, name in ((ranks, "fig3"), (seeds, "fig4")):
        for figure in presets.figures(result, name, side="a"):
            drawn |= contents(figure, Path(folder) / f"{name}-a.png")
    write_whole(drawn)
    echo_written(drawn)
