"""Compare many adapters at once: which are alike, copies, of one start or of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from subspace.analysis.frames import SIDES
from subspace.analysis.library import library
from subspace.cli.backend_options import backend_options
from subspace.cli.commands import _library_output as printed
from subspace.cli.number_types import Number, Numbers
from subspace.cli.option_kinds import one_of, whole
from subspace.cli.options import base_option, loading_options, printed_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["command"]


@click.command("library")
@click.argument("paths", metavar="PATHS...", nargs=-1)
@click.option(
    "--index",
    metavar="DIR",
    help="Folder that keeps what was read and compared: PATHS are added to the adapters in it, and all of them are the "
    "library. The same command goes on after an interruption.",
)
@click.option(
    "--near",
    metavar="ADAPTER",
    help="Compare only one adapter of the index, by its path or the end of it, with those nearest to it, which are "
    "found without comparing all pairs: for indexes of more than some ten thousand.",
)
@whole("--nearest", 20, "How many of those, on each side.")
@one_of(
    "--by",
    "total",
    "layer",
    "module",
    help="One row for each pair of adapters and side, or one for each layer or module of the pair.",
)
@click.option(
    "--side",
    type=click.Choice([*SIDES, "all"]),
    multiple=True,
    default=("a", "b"),
    help="Which singular vectors to compare: a, the right ones of A; b, the left ones of B; left and right, those of "
    "delta_W. May be repeated.  [default: a and b]",
)
@one_of(
    "--similarity",
    "cosine",
    *SIDES,
    help="What clusters are made of: the cosine of delta_W, or phi of a side over its control.",
)
@click.option(
    "--least",
    type=Number(0, 1, min_open=True),
    metavar="F",
    help="Mean similarity of the adapters in a cluster.  [default: 0.15 for the cosine, 0.2 for phi]",
)
@one_of(
    "--metric",
    "chordal",
    "projector",
    "geodesic",
    help="Distance of the spans: chordal and geodesic of their principal angles, projector for unequal ranks too.",
)
@click.option(
    "--leading",
    type=Numbers(1),
    metavar="I,J",
    help="Add phi of the leading I directions of the first adapter in the leading J of the second.",
)
@one_of(
    "--controls",
    "all",
    "same-input",
    "layers",
    "none",
    help="Controls, which are other modules of the two adapters: those that read the same input (q against v of one "
    "layer; sides a and right), or the same kind in other layers.",
)
@whole(
    "--shared",
    4,
    "Number of modules in which to measure the subspace that all adapters share; 0 for none.",
    least=0,
)
@backend_options
@click.option(
    "--plot",
    "plots",
    type=click.Choice(printed.PLOTS),
    multiple=True,
    help="Draw the library; may be repeated. The figures go to --out.",
)
@click.option(
    "-o", "--out", "folder", metavar="DIR", help="Folder for the figures.  [default: the current folder]"
)
@one_of("--image", "png", "pdf", "svg", help="File format of the figures.")
@click.option(
    "--parquet",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write all pairs to a Parquet file too; needs pyarrow.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file that --parquet names.")
@base_option("one of PATHS")
@loading_options("the adapters")
@printed_options(
    "--rows", "Print only pairs of an adapter whose name matches, such as '*run1*'; may be repeated."
)
def command(
    paths: tuple[str, ...], *, output: Output, workers: AbstractContextManager[int], **given: Any
) -> None:
    """Compare many adapters at once, all pairs, and say which belong together and how.

    PATHS are adapters of any known formats and ranks, and directories with adapters anywhere below, checkpoints
    included. Each pair is compared on the modules that both have. The cosine of the two delta_W is in [-1, 1] and near
    0 for unrelated ones; phi is in [0, 1], 1 where one span contains the other. Beside phi stand chance, its mean over
    isotropic random spans, and control, that of modules of another job in the same two adapters. From 39 adapters up, p
    is the share of the library that is as alike.

    How to read it: adapters of one start agree on A (side a) whatever they learned; adapters of one task agree on B and
    in the cosine. Copies, runs that continue one another, common starts and clusters are listed below the pairs; all
    of them, and what is nearest to each adapter, are in --json.

    \b
    Examples:
      subspace library adapters/
      subspace library run1/ run2/ other.safetensors --side all --json | jq .clusters
      subspace library adapters/ --index adapters.index --jobs 4
      subspace library new/ --index adapters.index --near new/adapter_model.safetensors
      subspace library adapters/ --plot heatmap --plot lineage -o figures/
    """
    folder, plots, image = given.pop("folder"), given.pop("plots"), given.pop("image")
    parquet, overwrite = given.pop("parquet"), given.pop("overwrite")
    _require_use(paths, given, plots, folder)
    printed.require_free(parquet, overwrite=overwrite)
    given["side"] = "all" if "all" in given["side"] else given["side"]
    with Progress("reading") as progress, workers as jobs:
        result = library(paths, layers="layers" in plots, progress=progress, jobs=jobs, **given)
    written = printed.figures(result, plots, folder, image) if plots else []
    written += printed.parquet(result, parquet, overwrite=overwrite) if parquet else []
    printed.show(result, output)
    echo_written(written)


def _require_use(
    paths: tuple[str, ...], given: dict[str, Any], plots: tuple[str, ...], folder: str | None
) -> None:
    """Refuse what would compare nothing, or change nothing."""
    if not paths and given["index"] is None:
        raise click.UsageError("Give paths of adapters, or --index")
    if given["near"] is not None and given["index"] is None:
        raise click.UsageError("--near needs --index")
    if folder is not None and not plots:
        raise click.UsageError("--out needs --plot")
    if given["leading"] is not None and len(given["leading"]) != 2:
        raise click.UsageError("--leading takes two numbers, such as 1,1")
