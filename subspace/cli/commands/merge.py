"""Merge adapters of one base into one, and say beforehand how their updates meet."""

from __future__ import annotations

from typing import Any

import click

from subspace.adapters import writers
from subspace.analysis.merge import merge
from subspace.analysis.merge_settings import ALLOWED
from subspace.cli.number_types import Number, Reals, Whole
from subspace.cli.options import output_options, several_loading_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress
from subspace.geometry import mergers
from subspace.text import shown

__all__ = ["command"]


class _WithMethods(click.Command):
    """A command whose help ends with what each method does."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Methods"):
            formatter.write_dl([(name, each.about) for name, each in mergers.every().items()])


@click.command("merge", cls=_WithMethods)
@click.argument("adapters", metavar="ADAPTER...", nargs=-1, required=True)
@click.option("-o", "--out", metavar="OUT", help="Directory, or file, that the merged adapter is written to.")
@click.option(
    "--weights",
    type=Reals(),
    metavar="W,W,...",
    help="Weight of each ADAPTER, comma-separated and of either sign.  [default: 1 each: the sum, not the mean]",
)
@click.option(
    "--method",
    type=click.Choice(mergers.names()),
    default="sum",
    show_default=True,
    help="How the updates become one; see below.",
)
@click.option(
    "--rank",
    type=Whole(1),
    metavar="R",
    help="Largest rank of a module.  [default of svd and of those that act on entries: the largest of the ADAPTERs]",
)
@click.option(
    "--energy",
    type=Number(0, 1, min_open=True),
    metavar="E",
    help="Least share of the squared norm to keep in every module, such as 0.95.",
)
@click.option(
    "--density",
    type=Number(0, 1, min_open=True),
    metavar="P",
    help="Share of the entries that stay.  [default: 0.2, for dare and dare_ties 0.5]",
)
@click.option(
    "--sign-method",
    type=click.Choice(["total", "frequency"]),
    help="What elects the sign of an entry: the sum of its values, or the number of each sign.  [default: total]",
)
@click.option(
    "--entries",
    type=click.Choice(["updates", "factors"]),
    help="Entries that a method acts on: of every delta_W, as PEFT's ties_svd, or of every A and B, as PEFT's ties, "
    "which depends on how the updates are factored and needs equal ranks.  [default: updates]",
)
@click.option(
    "--inner",
    type=click.Choice(["ties", "sum"]),
    help="What merges the aligned blocks of knots; by a sum it is the sum of the updates.  [default: ties]",
)
@click.option("--seed", type=Whole(0), metavar="N", help="Seed of the random entries of dare.  [default: 0]")
@click.option(
    "--inputs",
    metavar="FILE",
    help="Inputs of the modules, as subspace inputs writes them, for the cosine and the sizes of outputs in the "
    "forecast.",
)
@click.option("--dry-run", is_flag=True, help="Print what to expect, and write nothing.")
@click.option(
    "--forecast/--no-forecast",
    default=True,
    help="Whether to measure what to expect before merging.  [default: forecast]",
)
@click.option(
    "--to", type=click.Choice(writers.names()), default="peft", show_default=True, help="Format of OUT."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the numbers in OUT.",
)
@click.option(
    "--allow",
    type=click.Choice(ALLOWED),
    multiple=True,
    help="Allow a step that changes what an ADAPTER does. dora: merge DoRA's direction parts without its magnitudes; "
    "init: merge adapters whose start changed the base weights. May be repeated.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an adapter at OUT, in whose directory other files stay, but never an ADAPTER or another file.",
)
@click.option(
    "--base",
    metavar="PATH",
    help="Base weights, whose names decide which modules are meant where an ADAPTER does not say it in full.",
)
@several_loading_options("an ADAPTER")
@output_options
def command(
    *,
    adapters: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    output: Output,
    scale: tuple[float, ...] | None,
    **given: Any,
) -> None:
    """Merge adapters of one base into one, and say beforehand how their updates meet.

    ADAPTERs are of any known formats and ranks. OUT has scale 1, and the updates of every module in one pair A and B.
    sum, cat, svd, knots, iso and tsv work on the factors, exactly; dare, ties and magnitude_prune on single entries. In
    the table, error is ||T - BA|| / ||T|| of the factors as they are stored, with T what the method gives before it is
    cut to a rank, and from_sum the same from the weighted sum of the updates. The energy ratio of that sum is 1 where
    the updates are orthogonal, above where they reinforce each other and below where they cancel; the cosine and the
    overlap are means over pairs of ADAPTERs, next to matched controls. Modules that some ADAPTERs lack are merged of
    the others. What cannot be merged, such as biases and whole modules, is named.

    \b
    Examples:
      subspace merge poems/ letters/ -o both/
      subspace merge a/ b/ c/ -o merged/ --weights 1,0.5,-0.3 --method svd --rank 16
      subspace merge a/ b/ -o merged/ --method ties --density 0.3 --json | jq .total.error
      subspace merge a/ b/ --dry-run
    """
    _require_use(out, given)
    if out is not None and not given["dry_run"]:
        for each in adapters:
            writers.require_place(each, out, given["to"], overwrite=overwrite)
    one = scale[0] if scale is not None and len(scale) == 1 else scale
    with Progress("merging") as progress:
        result = merge(adapters, scale=one, progress=progress, **given)
    if given["dry_run"]:
        output.show(result)
        return
    assert out is not None
    written = result.save(out, overwrite=overwrite)
    if output.kind == "table" and result.expected():
        click.echo("\n".join(shown(each, longest=4000) for each in result.expected()) + "\n")
    output.show(result, document={"out": out})
    echo_written(written)


def _require_use(out: str | None, given: dict[str, Any]) -> None:
    """Refuse options that contradict each other."""
    if out is None and not given["dry_run"]:
        raise click.UsageError("Missing option '-o' / '--out'; or give --dry-run to see what to expect alone")
    if given["dry_run"] and not given["forecast"]:
        raise click.UsageError("--dry-run prints the forecast; leave --no-forecast out")
    if given["inputs"] is not None and not given["forecast"]:
        raise click.UsageError("--inputs is for the forecast; leave --no-forecast out")
