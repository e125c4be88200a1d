"""Find leading directions of the merged weights that the base does not have: intruder dimensions."""

from __future__ import annotations

from typing import Any

import click

from subspace.adapters import writers
from subspace.analysis.convert import convert
from subspace.analysis.intruders import intruders
from subspace.analysis.mitigate import mitigate
from subspace.cli.number_types import Number, Whole
from subspace.cli.options import epsilon_option, loading_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress
from subspace.cli.scope_options import base_and_delta_options, scoped_options
from subspace.results.conversion import Conversion
from subspace.results.intrusion import Intruders
from subspace.text import counted

__all__ = ["command"]

_WRITING = ("factor", "target", "rank", "dtype", "module", "overwrite")


@click.command("intruders")
@base_and_delta_options
@click.option(
    "-k",
    "k",
    type=Whole(1),
    default=10,
    show_default=True,
    metavar="K",
    help="Number of leading directions of W + delta_W to look at.",
)
@epsilon_option
@click.option(
    "--side",
    type=click.Choice(["left", "right", "both"]),
    default="left",
    show_default=True,
    help="Singular vectors to compare: left ones, of outputs, as the authors of the measure do; right ones, of inputs.",
)
@click.option(
    "--exact/--fast",
    default=None,
    help="Decompose every W in full, or none.  [default: exact up to 1024 rows or columns]",
)
@click.option(
    "--up-to",
    type=Number(0),
    default=64.0,
    show_default=True,
    metavar="S",
    help="Largest multiple of the adapter's scale at which a first intruder is looked for; 0 does not look.",
)
@click.option(
    "--mitigate",
    "factor",
    type=Number(0),
    metavar="LAMBDA",
    help="Write an adapter to OUT in which the top intruder of each matrix is multiplied by LAMBDA: 0 takes it out, "
    "1 changes nothing.",
)
@click.option("-o", "target", metavar="OUT", help="PEFT directory to write with --mitigate.")
@click.option(
    "--rank",
    type=Whole(1),
    metavar="R",
    help="Largest rank of a module that --mitigate changes.  [default: one more than it had, which is exact]",
)
@click.option(
    "--dtype",
    type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
    default="keep",
    show_default=True,
    help="Type of the numbers in OUT; keep: as in dW.",
)
@click.option(
    "--module", metavar="NAME", help="Name in OUT for the one module of dW, if dW does not name it."
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an adapter at OUT, in whose directory other files stay, but never dW.",
)
@loading_options("dW")
@scoped_options
def command(*, output: Output, scope: dict[str, Any], **given: Any) -> None:
    """Find leading directions of the merged weights that the base does not have: intruder dimensions.

    A singular vector of W + delta_W (not of delta_W), one of the K leading, is an intruder if its |cos| with every
    singular vector of W is below E (arXiv 2410.21228). The largest |cos| of an isotropic random direction is in the
    table as chance_max_cos. Intruders depend on the adapter's scale: s_star is the multiple of it at which the first
    one appears, next to what a law for directions independent of W predicts. An update with a large s_star is too small
    to have intruders, whatever it has learned.

    \b
    Examples:
      subspace intruders --base path/to/model --delta my-adapter/
      subspace intruders --base path/to/model --delta my-adapter/ --side both --json | jq .sweep
      subspace intruders --base path/to/model --delta my-adapter/ --mitigate 0.75 -o milder/
    """
    writing = {name: given.pop(name) for name in _WRITING}
    base, delta = given.pop("base"), given.pop("delta")
    _require_both(writing)
    if writing["target"] is not None:
        _mitigate(base, delta, output, scope=scope, writing=writing, **given)
        return
    with Progress("looking for intruders") as progress:
        result = intruders(base, delta, progress=progress, **scope, **given)
    _show(result, output)


def _require_both(writing: dict[str, Any]) -> None:
    if (writing["factor"] is None) != (writing["target"] is None):
        raise click.UsageError("--mitigate LAMBDA and -o OUT go together; give both, or neither")
    for name in ("rank", "module", "overwrite", "dtype"):
        if writing[name] and writing[name] != "keep" and writing["target"] is None:
            raise click.UsageError(
                f"--{name} is for what --mitigate writes; give --mitigate LAMBDA -o OUT with it"
            )


def _mitigate(
    base: str, delta: str, output: Output, *, scope: dict[str, Any], writing: dict[str, Any], **given: Any
) -> None:
    """Measure, and write the adapter with its top intruders scaled."""
    target, overwrite = writing["target"], writing["overwrite"]
    writers.require_place(delta, target, "peft", overwrite=overwrite)
    with Progress("looking for intruders") as progress:
        made = mitigate(
            base, delta, writing["factor"], rank=writing["rank"], progress=progress, **scope, **given
        )
        how = {name: writing[name] for name in ("dtype", "module")}
        converted = convert(made.adapter, to="peft", allow=["rounding"], base=base, **how)
    written = converted.save(target, overwrite=overwrite)
    _show(made.intruders, output, document={"out": target, "lambda": writing["factor"]})
    click.echo(_said(made.intruders, converted, writing["factor"]), err=True)
    echo_written(written)


def _said(result: Intruders, converted: Conversion, factor: float) -> str:
    """What was changed, and how far the written adapter is from it."""
    changed = {
        row.module: row.mitigated_error or 0.0 for row in result.modules if row.mitigated_r is not None
    }
    rounded = max(row.error for row in converted.modules)
    if not changed:
        return "No intruder was scaled: OUT holds the adapter as it was."
    return (
        f"Multiplied by {factor:g} in {counted(len(changed), 'module')}: the top intruder; delta_W as written is off "
        f"by at most {max(changed.values()):.2g} (relative) by its rank and {rounded:.2g} by rounding."
    )


def _show(result: Intruders, output: Output, document: dict[str, Any] | None = None) -> None:
    output.show(result, document=document)
    if output.kind == "table":
        click.echo(f"{result.convention}.")
