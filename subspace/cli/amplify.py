"""``subspace amplify --base W --delta dW``."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from subspace.analysis.amplify import amplify
from subspace.cli import output as out
from subspace.cli.options import Numbers, adapter_options, embedded_too, enabled, map_option, output_options
from subspace.cli.progress import Progress
from subspace.flags import Flag
from subspace.results.amplification import Amplification
from subspace.text import counted

__all__ = ["command", "document", "echo"]


@click.command("amplify")
@click.option(
    "--base",
    required=True,
    metavar="W",
    callback=embedded_too,
    help="One matrix, a file of weights, a model directory, or embedded: the base of this package.",
)
@click.option("--delta", required=True, metavar="dW", help="The adapter, a pair A and B, or a dense delta_W.")
@click.option(
    "--ranks",
    type=Numbers(1),
    metavar="4,64",
    help="How many leading directions of delta_W. Default: its rank (4,64 for a dense one).",
)
@click.option(
    "--tol",
    type=click.FloatRange(1e-9, 0.5),
    metavar="X",
    help="Relative error at which the search for W's own directions stops. Default: 3e-4 (1e-3 beyond 16 ranks).",
)
@adapter_options
@map_option("dW")
@output_options
def command(
    base: str,
    delta: str,
    ranks: tuple[int, ...] | None,
    tol: float | None,
    scale: float | None,
    adapter_name: str | None,
    enable_lora: tuple[int, ...] | None,
    rename: dict[str, str],
    output: str,
) -> None:
    """Amplification factors of an update over its base: table 7 of the LoRA paper, per module and rank.

    Beside ||delta_W|| / ||U'WV|| stand the projections of W on delta_W's directions, on W's own and on random ones. A
    factor is linear in the scale of delta_W: where a file does not say it, it is left out until --scale is given.

    How to read it: over_random above 1 says that delta_W's directions are in W; proj_delta_W far below proj_W says
    that they are not the ones W emphasises. The factor alone proves nothing: for random directions it is larger.

    \b
    Examples:
      subspace amplify --base W.npy --delta dW.npy --ranks 4,64
      subspace amplify --base path/to/model --delta my-adapter/ --csv
    """
    with Progress("amplifying") as progress:
        result = amplify(
            base,
            delta,
            ranks=ranks,
            scale=scale,
            tol=tol,
            adapter_name=adapter_name,
            enable_lora=enabled(enable_lora),
            rename=rename,
            progress=progress,
        )
    if output == "json":
        out.echo_json(document(result))
    elif output == "csv":
        click.echo(out.as_csv(result.records()), nl=False)
    else:
        echo(result)
    out.warn(result.notes)


def echo(result: Amplification) -> None:
    """Print the table, and how the base weights were read, in how many modules each way."""
    out.echo_table(result)
    ways = Counter(module.orientation for module in result.modules)
    told = "; ".join(f"{way}, in {counted(n, 'module')}" for way, n in ways.items())
    click.echo(f"Base weights: {told}.")


def document(result: Amplification) -> dict[str, Any]:
    """Return the JSON document ``subspace.amplify/1`` of a result."""
    return {
        "schema": "subspace.amplify/1",
        "base": result.base,
        "delta": result.delta,
        "modules": [
            {
                "module": row.module,
                "d_out": row.d_out,
                "d_in": row.d_in,
                "scale": row.scale,
                "scale_source": row.scale_source,
                "norm_W": row.norm_W,
                "norm_delta_W": row.norm_delta_W,
                "base_key": row.base_key,
                "orientation": row.orientation,
                **({"norm_whole": row.norm_whole} if Flag.DORA in row.flags else {}),
                "ranks": [vars(rank) for rank in row.ranks],
                "flags": list(row.flags),
            }
            for row in result.modules
        ],
        "missing": list(result.missing),
        "notes": list(result.notes),
    }
