"""The options of a question about base weights: which modules are measured, and how its result is printed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from subspace.cli.number_types import Numbers
from subspace.cli.options import printed_options
from subspace.cli.output import Output

__all__ = ["scoped_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def scoped_options(command: _F) -> _F:
    """Add how a result is printed, and of which modules: the command gets an `Output`, and a `scope` of keywords."""

    @functools.wraps(command)
    def with_scope(*arguments: Any, output: Output, layers: tuple[int, ...] | None, **given: Any) -> Any:
        scope = {"modules": output.modules, "layers": layers or ()}
        return command(*arguments, output=output, scope=scope, **given)

    measured = "Measure only modules whose name matches, such as '*.q_proj'; may be repeated."
    return cast(_F, printed_options("--modules", measured)(_LAYERS(with_scope)))


_LAYERS = click.option(
    "--layers",
    type=Numbers(0),
    metavar="0,8,16",
    help="Measure only the modules of these layers.  [default: all]",
)
