"""``subspace convert IN OUT --to FORMAT``."""

from __future__ import annotations

from typing import Any

import click

from subspace.adapters.writers import named
from subspace.adapters.writers._destination import require_place
from subspace.analysis.convert import Conversion, convert
from subspace.cli import output as out
from subspace.cli.options import adapter_options, enabled, output_options
from subspace.cli.outfiles import FORMATS, out_options, wrote
from subspace.cli.progress import Progress

__all__ = ["command", "document"]


@click.command("convert")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--to", required=True, type=click.Choice(FORMATS), help="Format of OUT.")
@out_options
@adapter_options
@output_options
def command(source: str, target: str, **given: Any) -> None:
    """Write an adapter in another format: whoever loads it applies the same delta_W.

    IN is an adapter of any known format. OUT is a directory for peft, a .pt file for loralib, a .safetensors file for
    kohya and diffusers. Factors keep their numbers and type; a scale goes where the format has it (diffusers: into B).
    A step that would change delta_W is refused, what is left behind is said. Groups of a fused layer are stacked in
    loralib, one pair with zeros elsewhere.

    \b
    Examples:
      subspace convert lora.safetensors my-adapter/ --to peft
      subspace convert roberta_lora.pt roberta/ --to peft --scale 2
      subspace convert my-adapter/ lora.safetensors --to kohya --dtype float16
    """
    require_place(source, target, named(given["to"]), overwrite=given["overwrite"])
    with Progress("converting") as progress:
        result = convert(
            source,
            to=given["to"],
            dtype=given["dtype"],
            allow=given["allow"],
            module=given["module"],
            scale=given["scale"],
            adapter_name=given["adapter_name"],
            enable_lora=enabled(given["enable_lora"]),
            progress=progress,
        )
    wrote(result.save(target, overwrite=given["overwrite"]))
    if given["output"] == "json":
        out.echo_json(document(result, target))
    elif given["output"] == "csv":
        click.echo(out.as_csv(result.records()), nl=False)
    else:
        out.echo_table(result)
    out.warn(result.notes)


def document(result: Conversion, target: str) -> dict[str, Any]:
    """Return the JSON document ``subspace.convert/1`` of a conversion."""
    return {
        "schema": "subspace.convert/1",
        "path": result.path,
        "out": target,
        "source_format": result.source_format,
        "format": result.format,
        "headline": result.headline(),
        "modules": [{**row.record(), "of": list(row.of)} for row in result.modules],
        "notes": list(result.notes),
    }
