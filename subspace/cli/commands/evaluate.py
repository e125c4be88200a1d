"""Measure what adapters do to the loss of their model, on the same examples."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from subspace.analysis.evaluate import evaluate
from subspace.analysis.update_variants import named_sources
from subspace.cli.number_types import Number, Numbers, Whole
from subspace.cli.options import column_options, loading_options, row_options
from subspace.cli.output import Output
from subspace.cli.progress import Progress

__all__ = ["command"]

_NAMED = re.compile(r"(?P<name>[^=/\\]+)=(?P<path>.+)", re.DOTALL)


def _parted(values: tuple[str, ...]) -> list[tuple[str | None, str]]:
    """Name, None without one, and path of each NAME=PATH; a path that exists is one, whatever is in it."""
    matches = [None if os.path.lexists(value) else _NAMED.fullmatch(value) for value in values]
    return [
        (match["name"], match["path"]) if match else (None, value)
        for match, value in zip(matches, values, strict=True)
    ]


def _adapters(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = _parted(values)
    customary = named_sources([path for _, path in found])
    return _by_name(
        ctx, param, [(name or own, path) for (name, path), own in zip(found, customary, strict=True)]
    )


def _data(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    found = [(name or re.split(r"[/\\]", path.rstrip("/\\"))[-1], path) for name, path in _parted(values)]
    return _by_name(ctx, param, found) or None


def _by_name(ctx: click.Context, param: click.Parameter, found: list[tuple[str, str]]) -> dict[str, str]:
    if len(dict(found)) < len(found):
        raise click.BadParameter("two have the same name; give each its own, as NAME=PATH", ctx, param)
    return dict(found)


@click.command("evaluate")
@click.argument("model", required=False)
@click.option(
    "--adapter",
    "updates",
    multiple=True,
    callback=_adapters,
    metavar="[NAME=]A",
    help="Adapter of any known format to put onto the model, by the last part of its path or a NAME; may be repeated.",
)
@click.option(
    "--data",
    multiple=True,
    callback=_data,
    metavar="[NAME=]PATH",
    help="Data to measure on: text, JSONL, CSV or TSV, or a folder of texts; may be repeated, once for the task "
    "and once for what should not be forgotten.  [default: what the adapters were trained on, by run.json]",
)
@click.option(
    "--truncate",
    type=Numbers(1),
    default=(),
    metavar="4,8",
    help="Measure each adapter cut to these ranks as well, as NAME@r=4.",
)
@click.option(
    "--merge",
    multiple=True,
    metavar="SUM",
    help="Measure a sum of adapters as well: sum or mean of all, or such as '0.5*a+0.5*b'; may be repeated.",
)
@click.option(
    "--reference",
    default="base",
    show_default=True,
    metavar="NAME",
    help="What differences are taken from: base, or the name of anything that is measured.",
)
@click.option(
    "--held-out",
    type=Number(0, 1, min_open=True),
    metavar="F",
    help="Measure on the part of the data that train --held-out F holds out; 1 for all.  [default: what a run held out "
    "where it trained on these data, else all]",
)
@click.option(
    "--most",
    type=Whole(1),
    metavar="N",
    help="Measure on at most N examples, evenly chosen.  [default: 256 windows of text, all texts with classes]",
)
@column_options
@click.option(
    "--labels/--no-labels",
    default=None,
    help="Measure a classifier if the data have labels; --no-labels models the texts alone.  [default: labels]",
)
@click.option(
    "--tokenizer",
    type=click.Choice(["auto", "bytes"]),
    help="The model's own tokenizer, or bytes as token ids.",
)
@click.option(
    "--length",
    type=Whole(1),
    metavar="N",
    help="Tokens per window of text; examples with labels are cut to this length.  [default: that of the runs, or 128]",
)
@click.option(
    "--batch", type=Whole(1), default=16, show_default=True, help="Examples, or windows of text, at a time."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "auto"]),
    default="float32",
    show_default=True,
    help="Type in which matrices are multiplied; bfloat16 rounds small updates away.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to compute on; auto: CUDA where there is one.",
)
@click.option("--losses", is_flag=True, help="With --json: the loss of each example too.")
@loading_options("the adapters")
@row_options("updates")
def command(*, output: Output, losses: bool, **given: Any) -> None:
    """Measure what adapters do to the loss of their model, on the same examples.

    MODEL is a Hugging Face directory or hub id, or embedded; by default the model that the adapters were trained on.
    Losses are of the model alone, with each adapter, with each cut to lower ranks (--truncate) and with sums of them
    (--merge). Differences have 95 % intervals by a paired bootstrap of the examples.

    How to read it: a difference whose interval (low, high) leaves out 0 is more than the choice of examples; kept is
    the share of an adapter's effect that is left after a cut. Windows of one text are not independent, so the
    intervals of text are somewhat too short.

    \b
    Examples:
      subspace evaluate --adapter r8/ --truncate 4,2,1
      subspace evaluate path/to/model --adapter r8/ --data own=reviews.tsv --data base=text.txt
      subspace evaluate --adapter a=one/ --adapter b=other/ --merge '0.5*a+0.5*b' --reference a --json
    """
    if losses and output.kind != "json":
        raise click.UsageError("--losses needs --json")
    with Progress("evaluating") as progress:
        result = evaluate(
            given.pop("model"), given.pop("updates") or (), given.pop("data"), progress=progress, **given
        )
    output.show(result, losses=losses) if losses else output.show(result)
