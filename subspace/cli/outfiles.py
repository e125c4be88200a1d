"""The options of commands that write an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from subspace.analysis.convert import LOSSES
from subspace.text import shown

__all__ = ["FORMATS", "out_options", "wrote"]

_F = TypeVar("_F", bound=Callable[..., Any])

FORMATS = ("peft", "loralib", "kohya", "diffusers")


def out_options(command: _F) -> _F:
    """Add --dtype, --allow, --module and --overwrite."""
    command = click.option(
        "--overwrite",
        is_flag=True,
        help="Replace an adapter that is at OUT; never IN, never a file of another kind.",
    )(command)
    command = click.option(
        "--module", metavar="NAME", help="Name of the layer, where IN is one matrix without."
    )(command)
    command = click.option(
        "--allow",
        type=click.Choice(LOSSES),
        multiple=True,
        help="Do what changes the model. dora: leave magnitudes out. init: IN's start changed its base weights. "
        "rounding: multiply a scale into 16-bit factors.",
    )(command)
    return click.option(
        "--dtype",
        type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
        default="keep",
        show_default=True,
        help="Type of the stored numbers.",
    )(command)


def wrote(paths: Iterable[Path]) -> None:
    """Say on standard error which files there are now."""
    for path in paths:
        click.echo(f"wrote {shown(path, longest=1000)}", err=True)
