"""Measure where delta_W lies in W's own singular directions, and how far it turns and rescales them."""

from __future__ import annotations

from typing import Any

import click

from subspace.analysis.align import align
from subspace.analysis.visibility import STORES
from subspace.cli.number_types import Number, Whole
from subspace.cli.options import loading_options
from subspace.cli.output import Output
from subspace.cli.progress import Progress
from subspace.cli.scope_options import base_and_delta_options, scoped_options

__all__ = ["command"]


@click.command("align")
@base_and_delta_options
@click.option(
    "--k",
    type=Whole(1),
    default=16,
    show_default=True,
    metavar="N",
    help="Number of leading singular directions of W to take.",
)
@click.option(
    "--mask-share",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="X",
    help="Share of W's entries that are in its principal mask.",
)
@click.option(
    "--store",
    type=click.Choice(STORES),
    help="Measure as well how much of delta_W is left when it is merged and stored in this type, as subspace "
    "visibility does.",
)
@loading_options("dW")
@scoped_options
def command(*, output: Output, scope: dict[str, Any], **given: Any) -> None:
    """Measure where delta_W lies in W's own singular directions, and how far it turns and rescales them.

    With W = U S V', the diagonal of U' delta_W V rescales W's singular values (reweighting); the rest mixes its
    directions. The input and output shares are what lies in the k leading right and left singular vectors of W; the
    rotations are the angles, in degrees, by which delta_W turns their spans. Each stands beside its value for isotropic
    random updates. --json has the shares for every k.

    How to read it: a share far above the isotropic one says that delta_W works where W is already strong; one below it
    that it avoids those directions. Rotations mean little with the flag span_undetermined. The mask overlap is to be
    compared with mask_gaussian: rounding to bfloat16 alone favours small entries of W.

    \b
    Examples:
      subspace align --base path/to/model --delta my-adapter/
      subspace align --base W.npy --delta dW.npy --k 32 --json
    """
    with Progress("aligning") as progress:
        result = align(given.pop("base"), given.pop("delta"), progress=progress, **scope, **given)
    output.show(result)
