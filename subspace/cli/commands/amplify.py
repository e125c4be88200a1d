"""What an update amplifies of its base weights: table 7 of the paper."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from subspace.analysis.amplify import amplify
from subspace.cli.options import Numbers, loading_options, output_options
from subspace.cli.output import Output
from subspace.cli.progress import Progress
from subspace.results.amplification import Amplification
from subspace.text import counted

__all__ = ["command", "echo_orientations"]


@click.command("amplify")
@click.option(
    "--base",
    required=True,
    metavar="W",
    help="Base weights: one matrix, a file of weights, a model directory, or embedded, the model inside this package.",
)
@click.option("--delta", required=True, metavar="dW", help="The adapter, a pair A and B, or a dense delta_W.")
@click.option(
    "--ranks",
    type=Numbers(1),
    metavar="4,64",
    help="How many leading directions of delta_W to take. Default: its rank (4,64 for a dense delta_W).",
)
@click.option(
    "--tol",
    type=click.FloatRange(1e-9, 0.5),
    metavar="X",
    help="Relative error at which the search for W's own directions stops. Default: 3e-4 (1e-3 beyond 16 ranks).",
)
@loading_options("dW")
@output_options
def command(*, output: Output, **given: Any) -> None:
    """Amplification factors of an update over its base: table 7 of the LoRA paper, per module and rank.

    Next to ||delta_W|| / ||U'WV|| stand the projections of W on delta_W's directions, on W's own and on random ones. A
    factor is linear in the scale of delta_W: where a file does not say it, it is left out until --scale is given.

    How to read it: over_random above 1 says that delta_W's directions are in W; proj_delta_W far below proj_W says
    that they are not the ones W emphasises. The factor alone proves nothing: for random directions it is larger.

    \b
    Examples:
      subspace amplify --base W.npy --delta dW.npy --ranks 4,64
      subspace amplify --base path/to/model --delta my-adapter/ --csv
    """
    with Progress("amplifying") as progress:
        result = amplify(given.pop("base"), given.pop("delta"), progress=progress, **given)
    output.show(result)
    if output.kind == "table":
        echo_orientations(result)


def echo_orientations(result: Amplification) -> None:
    """Print how the base weights were read, in how many modules each way."""
    ways = Counter(module.orientation for module in result.modules)
    listed = "; ".join(f"{way}, in {counted(n, 'module')}" for way, n in ways.items())
    click.echo(f"Base weights: {listed}.")
