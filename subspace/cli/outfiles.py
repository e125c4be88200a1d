"""The files that a command makes: the options that say which, and the one place that puts them on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from subspace.adapters.writing import named
from subspace.analysis.convert import LOSSES
from subspace.checkpoints.destination import require_free
from subspace.checkpoints.writing import write_whole
from subspace.errors import FileError, shown

if TYPE_CHECKING:
    from subspace.analysis.convert import Conversion

__all__ = ["FORMATS", "out_options", "require_place", "write"]

_F = TypeVar("_F", bound=Callable[..., Any])

FORMATS = ("peft", "loralib", "kohya", "diffusers")
_TORCH = {".pt", ".pth", ".bin", ".ckpt"}
_CONFIG = "adapter_config.json"


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


def require_place(source: str, out: str, *, to: str, overwrite: bool) -> None:
    """Check before any work that the output may be where the user wants it.

    Raises
    ------
    FileError : it is an input, exists, or has the suffix of another container
    """
    target, place, read = named(to), Path(out), Path(source)
    folder = target.weights is not None
    files = [place / target.weights, place / _CONFIG] if target.weights is not None else [place]
    inputs = [read, read / _CONFIG, read.parent / _CONFIG]
    require_free(place, files, inputs=inputs, folder=folder, overwrite=overwrite)
    wrong = {".safetensors"} if target.torch else _TORCH
    if not folder and place.suffix.lower() in wrong:
        container = "a torch file (.pt)" if target.torch else "a safetensors file (.safetensors)"
        raise FileError(
            f"an output must be named for what it is: got {shown(out, longest=1000)}, and {to} is written as "
            f"{container}; choose another name"
        )


def write(made: Conversion, out: str) -> None:
    """Put all files in place, or none, and say which."""
    contents = {Path(out) / name if name else Path(out): content for name, content in made.files.items()}
    write_whole(contents)
    for path in contents:
        click.echo(f"wrote {shown(path, longest=1000)}", err=True)
