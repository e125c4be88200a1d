"""``subspace demo``: adapters made on the spot, and the paper's section 7 on them."""

from __future__ import annotations

import click

from subspace.analysis.amplify import amplify
from subspace.analysis.compare import compare
from subspace.cli import output as out
from subspace.cli.amplify import echo
from subspace.cli.progress import Progress
from subspace.plots import figures, save
from subspace.text import shown
from subspace.training.demo import LESSONS, make

__all__ = ["command"]


@click.command("demo", short_help="Try it: small adapters made on the spot, compared and drawn.")
@click.option(
    "-o", "--out", "folder", default="demo", show_default=True, metavar="DIR", help="Where files go."
)
def command(folder: str) -> None:
    """Make three small adapters whose lesson is known, and analyse them: what an analysis should find.

    A base of linear layers is taught an update of rank 3 in every q_proj and of rank 1 in every v_proj, at r = 8 and
    r = 64 and from different seeds. The comparison should find shared dimensions of 3 and 1, and no more.

    \b
    Example:
      subspace demo -o somewhere/
    """
    with Progress("training three adapters") as progress:
        made = make(folder, progress=progress)
    taught = ", ".join(f"{len(strengths)} in every {name}" for name, strengths in LESSONS.items())
    click.echo(f"Taught: updates of rank {taught}. Three adapters and their base are in {shown(folder)}.\n")
    ranks = compare(made["a_r8"], made["a_r64"])
    seeds = compare(made["a_r64"], made["b_r64"])
    place = shown(folder, longest=1000)
    click.echo(f"$ subspace compare {place}/a_r8 {place}/a_r64 --figure fig3 -o {place}")
    out.echo_table(ranks)
    click.echo(f"\n$ subspace amplify --base {place}/base.safetensors --delta {place}/a_r8")
    echo(amplify(made["base"], made["a_r8"]))
    click.echo()
    for result, preset in ((ranks, "fig3"), (seeds, "fig4")):
        for figure in figures(result, preset, side="a"):
            for path in save(figure, made["base"].parent / f"{preset}-a.png"):
                click.echo(f"wrote {shown(path)}", err=True)
