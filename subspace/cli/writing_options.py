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
    help="Type of the numbers in OUT; keep: as in IN.",
)
_ALLOW = click.option(
    "--allow",
    type=click.Choice(LOSSES),
    multiple=True,
    help="Allow a step that changes delta_W. dora: leave DoRA's magnitudes out; init: convert although IN's start "
    "changed its base weights; rounding: multiply the scale into 16-bit factors; underflow: lose more than 1 % of "
    "delta_W because its numbers are too small for --dtype. May be repeated.",
)
_MODULE = click.option(
    "--module", metavar="NAME", help="Name for the one module of IN, if IN does not name it."
)
_OVERWRITE = click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an adapter at OUT, in whose directory other files stay, but never IN or a file of another kind.",
)
