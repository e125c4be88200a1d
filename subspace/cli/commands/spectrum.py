"""Measure how many directions an adapter uses, and advise ranks: by rules, or by its held-out loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from subspace.analysis.rank_advice import RULES
from subspace.analysis.spectrum import NULLS, spectrum
from subspace.checkpoints.atomic_writing import one_writer, write_whole
from subspace.cli.number_types import Number, Whole
from subspace.cli.options import column_options, loading_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress
from subspace.cli.scope_options import scoped_options
from subspace.errors import FileError
from subspace.results.cells import cell
from subspace.results.spectrum import Spectrum
from subspace.results.tested_ranks import MeasuredRanks
from subspace.text import shown

__all__ = ["command"]


@click.command("spectrum")
@click.argument("source", metavar="ADAPTER")
@click.option(
    "--base",
    metavar="W",
    help="Base weights to measure delta_W against: one matrix, a file of weights, a model directory, or the word "
    "embedded. Needed if they define ADAPTER (IA3, OFT, a full fine-tune).",
)
@click.option(
    "--rule",
    type=click.Choice([*RULES, "tested"]),
    help="Rule by which ranks are advised.  [default: tested where the loss was measured and clear, else energy]",
)
@click.option(
    "--energy",
    type=Number(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    metavar="E",
    help="Share of ||delta_W||^2 that the rule energy keeps in every module.",
)
@click.option(
    "--null",
    type=click.Choice(NULLS),
    default=NULLS[0],
    show_default=True,
    help="Random update that above_random is counted against: factors: A and B random; B: B random, A as it is.",
)
@click.option(
    "--model",
    metavar="M",
    help="Test ranks on this model: a Hugging Face directory or hub id, or embedded.  [default with --data: the model "
    "that ADAPTER was trained on, or embedded]",
)
@click.option(
    "--data",
    metavar="PATH",
    help="Test ranks on these data, as evaluate reads them.  [default with --model: what ADAPTER was trained on, by "
    "run.json]",
)
@click.option(
    "--margin",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    metavar="F",
    help="Share of the adapter's gain in loss that a lower rank may lose, for certain.",
)
@click.option(
    "--held-out",
    type=Number(0, 1, min_open=True),
    metavar="F",
    help="Test on the part of the data that train --held-out F holds out; 1 for all.  [default: what the run held out "
    "where it trained on these data, else all]",
)
@click.option(
    "--most",
    type=Whole(1),
    metavar="N",
    help="Test on at most N examples, evenly chosen.  [default: 256 windows of text, all texts with classes]",
)
@click.option(
    "--length",
    type=Whole(1),
    metavar="N",
    help="Tokens per window of text; examples with labels are cut to this length.  [default: that of the run, or 128]",
)
@click.option(
    "--batch", type=Whole(1), default=16, show_default=True, help="Examples, or windows of text, at a time."
)
@column_options
@click.option(
    "--labels/--no-labels",
    default=None,
    help="Measure a classifier if the data have labels; --no-labels models the texts alone.  [default: labels]",
)
@click.option(
    "--ranks-out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the ranks as JSON, as truncate --rank-pattern reads them.",
)
@click.option(
    "--config-out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write fields of a PEFT LoraConfig as JSON that train anew at these ranks under the same scales: r, "
    "lora_alpha, rank_pattern, alpha_pattern.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that --ranks-out and --config-out name.")
@loading_options("ADAPTER")
@scoped_options
def command(
    source: str,
    *,
    output: Output,
    scope: dict[str, Any],
    ranks_out: Path | None,
    config_out: Path | None,
    overwrite: bool,
    **given: Any,
) -> None:
    """Measure how many directions an adapter uses, and advise a rank per module: is r = 64 wasted?

    Per module: singular values of delta_W, numerical, stable and entropy rank, the directions that hold 95 % of its
    energy, and what three rules would keep: a knee, the optimal hard threshold (Gavish & Donoho), and directions above
    random factors of the same size. With --base, the same against W's singular values.

    A rule knows delta_W and not the loss. With --model or --data the adapter is cut to a ladder of ranks, and to what
    each rule says, and the held-out loss decides: the fewest parameters that surely keep 95 % of what the adapter gains
    over its base (--margin; one-sided, 95 % over all candidates together).

    \b
    Examples:
      subspace spectrum my-adapter/
      subspace spectrum my-adapter/ --data held-out.txt --model path/to/model --ranks-out ranks.json
      subspace truncate my-adapter/ smaller/ --rank-pattern ranks.json
    """
    _require_free([ranks_out, config_out], overwrite)
    with Progress("measuring") as progress:
        result = spectrum(source, progress=progress, **scope, **given)
    output.show(result)
    if output.kind == "table" and result.evaluated is not None:
        _echo_candidates(result.evaluated)
    echo_written(_written(result, ranks_out, config_out, overwrite))


def _echo_candidates(found: MeasuredRanks) -> None:
    """Print what was tested, from the most parameters to the fewest."""
    lines: list[tuple[str, ...]] = [("ranks", "parameters", "loss", "added", "limit", "kept", "enough")]
    for each in found.candidates:
        name = " = ".join((each.name, *each.also))
        numbers = (each.parameters, each.loss, each.difference, each.upper, each.kept)
        lines.append((name, *map(cell, numbers), "yes" if each.enough else "no"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    click.echo(f"\nTested (limit: of what is added to the loss, against a margin of {found.margin:.4g}):")
    for name, *rest in lines:
        click.echo(
            "  ".join((name.ljust(widths[0]), *(t.rjust(w) for t, w in zip(rest, widths[1:], strict=True))))
        )


def _require_free(paths: list[Path | None], overwrite: bool) -> None:
    """Refuse to replace a file before the work is done, not after it."""
    for path in paths:
        if path is not None and path.exists() and not overwrite:
            raise FileError(f"{shown(path, longest=1000)} exists already; give another name, or `overwrite`")


def _written(result: Spectrum, ranks: Path | None, config: Path | None, overwrite: bool) -> list[Path]:
    contents = {} if ranks is None else {ranks: result.rank_pattern()}
    contents |= {} if config is None else {config: result.peft_config()}
    for path, value in contents.items():
        with one_writer(path):
            _require_free([path], overwrite)
            write_whole({path: (json.dumps(value, indent=2) + "\n").encode()})
    return list(contents)
