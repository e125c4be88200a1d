"""Explain the leading directions of an adapter: mean input, inputs, gradient, W, attention heads, tokens."""

from __future__ import annotations

from typing import Any

import click

from subspace.analysis.explain import explain
from subspace.cli.number_types import Number, Numbers
from subspace.cli.option_kinds import whole
from subspace.cli.options import loading_options
from subspace.cli.output import Output
from subspace.cli.progress import Progress
from subspace.cli.scope_options import scoped_options
from subspace.cli.wording import in_options

__all__ = ["command"]


@click.command("explain")
@click.argument("source", metavar="ADAPTER")
@click.option(
    "--inputs",
    metavar="FILE",
    help="Inputs of the modules, as subspace inputs writes them: how much of a direction is the mean input, and what "
    "it adds to the output.",
)
@click.option(
    "--base",
    metavar="M",
    help="Base model: a model directory, a file of weights, or the word embedded: for W, tokens and the number "
    "of heads. Needed if it defines ADAPTER (IA3, OFT, a full fine-tune).",
)
@whole("--directions", 4, "Number of leading directions of every module.")
@whole("--leading", 16, "Number of leading directions of the inputs, and of W, that they are compared with.")
@click.option(
    "--heads",
    type=Numbers(1),
    metavar="32,8",
    help="Number of attention heads, and that of keys and values where it is another.  [default: by config.json of the "
    "base]",
)
@whole(
    "--tokens", 8, "Number of tokens that stand out to keep for every direction; 0 compares none.", least=0
)
@whole("--draws", 199, "Number of isotropic random directions that tokens are tested against.")
@click.option(
    "--level",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    metavar="P",
    help="Level of p up to which a token stands out.",
)
@click.option(
    "--tokenizer",
    default="auto",
    show_default=True,
    metavar="PATH",
    help="Names of the tokens: a tokenizer.json, the word bytes, or auto for the one next to the weights of the base.",
)
@loading_options("ADAPTER")
@scoped_options
def command(source: str, *, output: Output, scope: dict[str, Any], **given: Any) -> None:
    """Explain the leading directions of an adapter: why those, and what do they do?

    Per module, delta_W = sum sigma u v' over its directions: v reads the input, u is written. The table has how much of
    v lies in the mean of the inputs and how much of what the direction adds is a constant shift (--inputs); in the
    leading directions of the inputs, of the first gradient (inputs --gradients) and of W (--base); the attention head
    that holds most of it; and a token that stands out. Each share has the chance level of isotropic random directions
    beside it, and in --json and --csv that of control directions: the trailing ones of the same module.

    Tokens: v of modules that read the residual stream is compared with the embedding through the gain of the norm
    before it, u of those that write with the unembedding through that of the last norm. A token is named only if no
    more than --level of isotropic random directions have any token that near; --draws sets the smallest p.

    \b
    Examples:
      subspace explain my-adapter/
      subspace inputs --adapter my-adapter/ -o inputs.safetensors --gradients
      subspace explain my-adapter/ --inputs inputs.safetensors --base path/to/model --json
    """
    with Progress("explaining") as progress:
        result = explain(source, progress=progress, **scope, **given)
    output.show(result)
    if output.kind == "table":
        for limit in result.limits:
            click.echo(in_options(limit, click.get_current_context().command))
