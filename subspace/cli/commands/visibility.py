"""Measure how much of an adapter is left when it is merged into weights of a narrow type."""

from __future__ import annotations

from typing import Any

import click

from subspace.analysis.visibility import STORES, visibility
from subspace.cli.number_types import Whole
from subspace.cli.option_kinds import one_of
from subspace.cli.options import loading_options
from subspace.cli.output import Output
from subspace.cli.progress import Progress
from subspace.cli.scope_options import base_and_delta_options, scoped_options

__all__ = ["command"]


@click.command("visibility")
@base_and_delta_options
@one_of(
    "--store",
    *STORES,
    help="Type that the merged weights are stored in; auto is that of the base where it is bfloat16 or float16, else "
    "bfloat16.",
)
@click.option(
    "--rank",
    "r",
    type=Whole(0),
    metavar="R",
    help="Number of leading directions to compare; 0 for none, which is several times quicker.  [default: the rank of "
    "delta_W; 4 for a dense one]",
)
@loading_options("dW")
@scoped_options
def command(*, output: Output, scope: dict[str, Any], **given: Any) -> None:
    """Measure how much of an adapter is left when it is merged into its base weights and the sum is stored.

    bfloat16 has 8 significant bits: a change of an entry of W by less than about 1/500 of it is rounded away. What is
    left is D = round(W + delta_W) - W. The table has the share of the entries of W that change, beside that for
    isotropic random entries of the same norm; the norm of D relative to that of delta_W, and their cosine; and phi of
    their leading left and right directions.

    How to read it: if norm_left and cosine are near 1, the merged model has the update. A norm near 1 with a low cosine
    is mostly rounding. If little is left, store the merged weights in float32, or keep the adapter apart. The sum is
    computed in float32 and rounded once. int8 is the scheme of LLM.int8, with one scale per row.

    \b
    Examples:
      subspace visibility --base path/to/model --delta my-adapter/
      subspace visibility --base path/to/model --delta my-adapter/ --store int8 --rank 0 --csv
    """
    with Progress("merging") as progress:
        result = visibility(given.pop("base"), given.pop("delta"), progress=progress, **scope, **given)
    output.show(result)
