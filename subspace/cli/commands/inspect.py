"""Show what is in an adapter: modules, ranks, scales, norms."""

from __future__ import annotations

from typing import Any

import click

from subspace.analysis.inspect import inspect
from subspace.cli.options import base_option, loading_options, output_options
from subspace.cli.output import Output
from subspace.cli.progress import Progress
from subspace.results.inspection import Inspection
from subspace.text import shown

__all__ = ["command"]


@click.command("inspect")
@click.argument("adapters", nargs=-1, required=True, metavar="ADAPTER...")
@base_option("ADAPTER")
@loading_options("ADAPTER")
@output_options
@click.option("-v", "--verbose", is_flag=True, help="List every tensor that is ignored, and why.")
def command(adapters: tuple[str, ...], *, output: Output, verbose: bool, **given: Any) -> None:
    """Show what is in an adapter: modules, ranks, scales and where they come from, norms, ignored tensors.

    ADAPTER is a PEFT directory or a file of weights: of PEFT, of loralib (.pt), a pair of matrices A and B, a dense
    delta_W, or one of many other formats. Several adapters are shown one after the other; with --json, each is one
    line.

    \b
    Examples:
      subspace inspect my-adapter/
      subspace inspect --json a.safetensors b.pt | jq .modules[0].scale
    """
    for n, path in enumerate(adapters):
        with Progress("inspecting") as progress:
            found = inspect(path, progress=progress, **given)
        _print(found, output, verbose, several=len(adapters) > 1, first=n == 0)


def _print(found: Inspection, output: Output, verbose: bool, *, several: bool, first: bool) -> None:
    if several and output.kind == "table":
        click.echo(("" if first else "\n") + f"== {shown(found.path, longest=1000)}")
    output.show(found, header=first)
    if output.kind == "table":
        click.echo(f"Other tensors: {len(found.ignored)} ignored, {len(found.unknown)} unknown.")
        for line in _tensors(found) if verbose else ():
            click.echo(f"  {line}")


def _tensors(found: Inspection) -> list[str]:
    known = [f"{shown(item.key)}: {item.why}" for item in found.ignored]
    return [*known, *(f"{shown(key)}: unknown" for key in found.unknown)]
