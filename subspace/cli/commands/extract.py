"""Turn a fine-tuned or merged model into an adapter over its base, and say which rank its change has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from subspace.adapters import writers
from subspace.analysis.extract import extract
from subspace.cli.number_types import Number
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress
from subspace.cli.scope_options import scoped_options

__all__ = ["command"]

if TYPE_CHECKING:
    _Rank = click.ParamType[int | str]
else:
    _Rank = click.ParamType


class _RankOrAuto(_Rank):
    """A whole number of at least 1, or the word auto."""

    name = "integer or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read the word."""
        if value == "auto":
            return "auto"
        try:
            rank = int(value)
        except ValueError:
            return self.fail(f"{value!r} is neither a whole number nor auto", param, ctx)
        return rank if rank >= 1 else self.fail(f"{value} is not at least 1", param, ctx)


@click.command("extract")
@click.option(
    "--base",
    required=True,
    metavar="W",
    help="Model before training: a directory, a file of weights, or the index of its shards.",
)
@click.option(
    "--tuned", required=True, metavar="W2", help="Model after training, or with an adapter merged into it."
)
@click.option(
    "--rank",
    type=_RankOrAuto(),
    metavar="R",
    help="Largest rank of a module, or auto: all directions that stand above the rounding of the stored weights.  "
    "[default: auto]",
)
@click.option(
    "--energy",
    type=Number(0, 1, min_open=True),
    metavar="E",
    help="Least share of ||W2 - W||^2 to keep in every module, such as 0.95; in place of --rank.",
)
@click.option("-o", "--out", required=True, metavar="DIR", help="Directory that the adapter is written to.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the numbers in DIR.",
)
@click.option(
    "--save-rest",
    is_flag=True,
    help="Store what changed and can be no LoRA (norms, biases, embeddings of another size) whole with the adapter, as "
    "PEFT's modules_to_save.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an adapter at DIR, in which other files stay, but never W, W2 or a file of another kind.",
)
@scoped_options
def command(
    *, base: str, tuned: str, out: str, overwrite: bool, output: Output, scope: dict[str, Any], **given: Any
) -> None:
    """Turn a fine-tuned or merged model into a LoRA adapter over its base, and say which rank its change has.

    Every changed weight becomes a pair A and B, the nearest matrix of the rank to W2 - W, and all of them a PEFT
    adapter in DIR, with scale 1. In the table, recovered is the number of directions that stand above the rounding of
    the stored weights: the rank of a LoRA that was merged. Floor is the singular value above which every direction is
    found, and error is ||dW - B A|| / ||dW|| of the factors as they are stored. What changed and can be no LoRA is
    named, and stored with --save-rest.

    \b
    Examples:
      subspace extract --base path/to/model --tuned path/to/merged -o adapter/
      subspace extract --base path/to/model --tuned path/to/tuned --rank 64 -o adapter/ --json | jq .modules[0].error
      subspace extract --base path/to/model --tuned path/to/tuned --energy 0.9 --modules '*_proj' -o adapter/
    """
    if given["rank"] is not None and given["energy"] is not None:
        raise click.UsageError("Give --rank or --energy, not both")
    for model in (tuned, base):
        writers.require_place(model, out, "peft", overwrite=overwrite)
    with Progress("extracting") as progress:
        result = extract(base, tuned, progress=progress, **scope, **given)
    written = result.save(out, overwrite=overwrite)
    output.show(result, document={"out": out})
    echo_written(written)
