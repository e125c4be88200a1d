"""Write an adapter in another format, with the same delta_W."""

from __future__ import annotations

from typing import Any

import click

from subspace.adapters import writers
from subspace.analysis.convert import convert
from subspace.cli.options import base_option, loading_options, output_options
from subspace.cli.output import Output, echo_written
from subspace.cli.progress import Progress
from subspace.cli.writing_options import written_options

__all__ = ["command"]


@click.command("convert")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--to", required=True, type=click.Choice(writers.names()), help="Format of OUT.")
@written_options
@base_option("IN")
@loading_options("IN")
@output_options
def command(source: str, target: str, *, output: Output, overwrite: bool, **given: Any) -> None:
    """Write an adapter in another format, with the same delta_W.

    IN is an adapter of any known format. OUT is a directory for peft, a .pt file for loralib, a .safetensors file for
    kohya and diffusers. Factors keep their values and type; the scale is stored if the format has a place for it, and
    multiplied into B for diffusers. A step that would change delta_W is refused, and tensors that are left out are
    named. The groups of a fused layer stay stacked in loralib; elsewhere they become one pair with zeros between.
    Modules get the names that they have in transformers and diffusers. Names that do not say the module, such as those
    with underscores for dots, are refused where the words of known models do not decide; give --base or --map.

    \b
    Examples:
      subspace convert lora.safetensors my-adapter/ --to peft
      subspace convert roberta_lora.pt roberta/ --to peft --scale 2
      subspace convert my-adapter/ lora.safetensors --to kohya --dtype float16
    """
    writers.require_place(source, target, given["to"], overwrite=overwrite)
    with Progress("converting") as progress:
        result = convert(source, progress=progress, **given)
    written = result.save(target, overwrite=overwrite)
    output.show(result, document={"out": target})
    echo_written(written)
