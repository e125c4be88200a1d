"""The options of commands that write an adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from subspace.analysis.convert import LOSSES

__all__ = ["written_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def written_options(command: _F) -> _F:
    """Add --dtype, --allow, --module and --overwrite."""
    for option in (_OVERWRITE, _MODULE, _ALLOW, _DTYPE):
        command = option(command)
    return command


_DTYPE = click.option(
    "--dtype",
    type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
    default="keep",
    show_default=True,
    help="Type of the stored numbers.",
)
_ALLOW = click.option(
    "--allow",
    type=click.Choice(LOSSES),
    multiple=True,
    help="Allow a step that changes the model. dora: leave magnitudes out. init: IN's start changed its base weights. "
    "rounding: multiply a scale into 16-bit factors. May be repeated.",
)
_MODULE = click.option(
    "--module", metavar="NAME", help="Name to give the one layer of IN, where IN does not name it."
)
_OVERWRITE = click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an adapter that is at OUT; never IN, never a file of another kind.",
)
