"""Measure what the modules of a model are given on some data: second moments, for compare --inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from subspace.analysis.inputs_plan import Reach, planned
from subspace.analysis.resolve import Loading
from subspace.cli.number_types import Number, Whole
from subspace.cli.options import column_options, loading_options, output_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress

__all__ = ["command"]

_LOADING = ("scale", "adapter_name", "enable_lora", "layout", "rename")
_READING = ("text_column", "label_column", "labels")
_SHOWING = ("tokenizer", "length", "batch", "held_out")
_REACH = ("tokens", "eigenpairs", "full", "gradients")


@click.command("inputs")
@click.option(
    "--model",
    metavar="M",
    help="Model to measure: a Hugging Face directory or hub id, or embedded.  [default: what --adapter was trained "
    "on, by its run.json, else embedded]",
)
@click.option(
    "--data",
    metavar="PATH",
    help="Data that the model is given: text, JSONL, CSV or TSV, or a folder of texts.  [default: what --adapter was "
    "trained on]",
)
@click.option(
    "--targets",
    multiple=True,
    metavar="PATTERN",
    help="Modules to measure, such as q_proj or 'layers.3.*'; may be repeated.  [default: every linear module of the "
    "blocks]",
)
@click.option(
    "--adapter",
    metavar="A",
    help="Measure the modules of this adapter, of any known format, in the place of --targets.",
)
@click.option(
    "--tokens",
    type=Whole(1),
    default=32768,
    show_default=True,
    metavar="N",
    help="Number of tokens to read, evenly chosen from the data.",
)
@click.option(
    "--eigenpairs",
    type=Whole(1),
    default=64,
    show_default=True,
    metavar="K",
    help="Number of leading eigenpairs to keep of each input; all are where it has at most 1024 dimensions.",
)
@click.option(
    "--full",
    type=Whole(0),
    default=4096,
    show_default=True,
    metavar="D",
    help="Largest dimension of which the whole second moment is summed up; inputs of more are sketched.",
)
@click.option(
    "--gradients",
    is_flag=True,
    help="Measure the leading directions of the gradient of the loss by each weight too, before any training.",
)
@click.option(
    "--held-out",
    type=Number(0, 1, min_open=True),
    metavar="F",
    help="Read only the part of the data that train --held-out F holds out.  [default: all of the data]",
)
@column_options
@click.option(
    "--labels/--no-labels",
    default=None,
    help="Read data with labels as a classifier does; --no-labels reads the texts alone.  [default: labels]",
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
    help="Tokens per window of text; examples with labels are cut to this length.  [default: that of the run, or 128]",
)
@click.option(
    "--batch", type=Whole(1), default=16, show_default=True, help="Examples, or windows of text, at a time."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to compute on; auto: CUDA where there is one.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print how much memory and what file it takes, and read nothing more."
)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="Write the result to this .safetensors file, for compare --inputs.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace a file of inputs at FILE, but never one of another kind."
)
@loading_options("the adapter")
@output_options
def command(*, output: Output, dry_run: bool, **given: Any) -> None:
    """Measure what the modules of a model are given on some data: how much of it is the mean, how many directions.

    Adapters of one base share directions of A because all of them read the same inputs. This measures those: of every
    linear module the mean, and the leading eigenpairs of the second moment C = E[x x^T]. Modules that are given the
    very same tensor, such as q, k and v, are stored once. compare --inputs FILE then says how much of phi the inputs
    explain, and how alike the outputs of two updates are.

    While it runs, what is summed up so far is kept next to FILE, as FILE.partial, every minute and when it is
    interrupted; the same command goes on from there.

    \b
    Examples:
      subspace inputs --data text.txt -o inputs.safetensors
      subspace inputs --model path/to/model --data text.txt --targets q_proj --targets v_proj -o inputs.safetensors
      subspace inputs --adapter my-adapter/ -o inputs.safetensors --dry-run
    """
    plan = planned(
        given["model"],
        given["data"],
        targets=given["targets"] or None,
        adapter=given["adapter"],
        reach=Reach(**{name: given[name] for name in _REACH}),
        loss=None,
        out=given["out"],
        overwrite=given["overwrite"],
        reading={name: given[name] for name in _READING},
        showing={name: given[name] for name in _SHOWING},
        device=given["device"],
        loading=Loading(None, **{name: given[name] for name in _LOADING}),
    )
    click.echo(plan.size(), err=True)
    if dry_run:
        return
    with Progress("reading tokens") as progress:
        result = plan.carried_out(progress)
    output.show(result)
    echo_written([Path(given["out"])] if given["out"] else [])
