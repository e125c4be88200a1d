"""``subspace inspect ADAPTER...``."""

from __future__ import annotations

from typing import Any

import click

from subspace.analysis.inspect import inspect
from subspace.cli import output as out
from subspace.cli.options import adapter_options, embedded_too, enabled, map_option, output_options
from subspace.cli.progress import Progress
from subspace.results.inspection import Inspection
from subspace.text import shown

__all__ = ["command", "document"]


@click.command("inspect")
@click.argument("adapters", nargs=-1, required=True, metavar="ADAPTER...")
@click.option(
    "--base", metavar="PATH", callback=embedded_too, help="Base weights, where ADAPTER is a full fine-tune."
)
@adapter_options
@map_option("ADAPTER")
@output_options
@click.option("-v", "--verbose", is_flag=True, help="List every ignored tensor with why.")
def command(
    adapters: tuple[str, ...],
    base: str | None,
    scale: float | None,
    adapter_name: str | None,
    enable_lora: tuple[int, ...] | None,
    rename: dict[str, str],
    output: str,
    verbose: bool,
) -> None:
    """Show what is in an adapter: modules, ranks, scale and its source, norms, what was ignored.

    ADAPTER is a PEFT directory, or a file: PEFT, loralib .pt, a plain pair A and B, a dense delta. Several are shown
    one after the other; with --json, one object a line.

    \b
    Examples:
      subspace inspect my-adapter/
      subspace inspect --json a.safetensors b.pt | jq .modules[0].scale
    """
    for n, path in enumerate(adapters):
        with Progress("inspecting") as progress:
            found = inspect(
                path,
                base=base,
                scale=scale,
                adapter_name=adapter_name,
                enable_lora=enabled(enable_lora),
                rename=rename,
                progress=progress,
            )
        _print(found, output, verbose, first=n == 0)
        out.warn(found.notes)


def _print(found: Inspection, output: str, verbose: bool, *, first: bool) -> None:
    if output == "json":
        out.echo_json(document(found))
        return
    if output == "csv":
        records = [{"path": found.path, **record} for record in found.records()]
        click.echo(out.as_csv(records, header=first), nl=False)
        return
    out.echo_table(found)
    click.echo(f"tensors ignored: {len(found.ignored)}, unknown: {len(found.unknown)}")
    if verbose:
        for item in found.ignored:
            click.echo(f"  {shown(item.key)}: {item.why}")
        for key in found.unknown:
            click.echo(f"  {shown(key)}: unknown")


def document(found: Inspection) -> dict[str, Any]:
    """Return the JSON document ``subspace.inspect/1`` of an inspection."""
    return {
        "schema": "subspace.inspect/1",
        "path": found.path,
        "format": found.format,
        "container": found.container,
        "sha256": found.sha256,
        "modules": [{**row.record(), "flags": list(row.flags)} for row in found.modules],
        "ignored": [{"key": item.key, "why": item.why} for item in found.ignored],
        "unknown": list(found.unknown),
        "totals": found.totals(),
        "notes": list(found.notes),
    }
