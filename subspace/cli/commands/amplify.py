"""Measure what an adapter amplifies in its base weights: table 7 of the LoRA paper."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from subspace.analysis.amplify import amplify
from subspace.analysis.visibility import STORES
from subspace.cli.number_types import Number, Numbers
from subspace.cli.options import loading_options
from subspace.cli.output import Output
from subspace.cli.progress import Progress
from subspace.cli.scope_options import base_and_delta_options, scoped_options
from subspace.results.amplification import Amplification
from subspace.text import counted

__all__ = ["command", "echo_orientations"]


@click.command("amplify")
@base_and_delta_options
@click.option(
    "--ranks",
    type=Numbers(1),
    metavar="4,64",
    help="Numbers of leading directions of delta_W to take.  [default: its rank; 4,64 for a dense delta_W]",
)
@click.option(
    "--tol",
    type=Number(1e-9, 0.5),
    metavar="X",
    help="Relative error at which the search for W's own directions stops.  [default: 3e-4; 1e-3 for more than 16 "
    "directions]",
)
@click.option(
    "--store",
    type=click.Choice(STORES),
    help="Measure as well how much of delta_W is left when it is merged and stored in this type, as subspace "
    "visibility does; about doubles the time.",
)
@loading_options("dW")
@scoped_options
def command(*, output: Output, scope: dict[str, Any], **given: Any) -> None:
    """Measure what an adapter amplifies in its base weights: table 7 of the LoRA paper, per module and rank.

    The amplification factor is ||delta_W|| / ||U'WV||, with U and V the leading directions of delta_W. The table also
    has the projections of W on delta_W's directions, on W's own and on isotropic random ones. The factor is
    proportional to the scale of delta_W; if the file does not say the scale, give --scale.

    How to read it: if over_random is above 1, W has more in delta_W's directions than in isotropic random ones; if
    proj_delta_W is far below proj_W, they are not the directions that W emphasises. The factor alone proves nothing:
    for random directions it is even larger.

    \b
    Examples:
      subspace amplify --base W.npy --delta dW.npy --ranks 4,64
      subspace amplify --base path/to/model --delta my-adapter/ --csv
    """
    with Progress("amplifying") as progress:
        result = amplify(given.pop("base"), given.pop("delta"), progress=progress, **scope, **given)
    output.show(result)
    if output.kind == "table":
        echo_orientations(result)


def echo_orientations(result: Amplification) -> None:
    """Print how the base weights were read, in how many modules each way."""
    ways = Counter(module.orientation for module in result.modules)
    listed = "; ".join(f"{way}, in {counted(n, 'module')}" for way, n in ways.items())
    click.echo(f"Base weights: {listed}.")
