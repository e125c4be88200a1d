"""The options of a question about base weights: which modules are measured and how, and how its result is printed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar, cast

import click

from subspace.cli.number_types import Numbers, Whole
from subspace.cli.options import printed_options
from subspace.cli.output import Output

__all__ = ["base_and_delta_options", "scoped_options"]

_F = TypeVar("_F", bound=Callable[..., Any])
_SCOPE = ("layers", "jobs", "device", "resume")


def base_and_delta_options(command: _F) -> _F:
    """Add the two sides of a question about base weights: --base and --delta."""
    return _BASE(_DELTA(command))


def scoped_options(command: _F) -> _F:
    """Add how a result is printed, of which modules, and how they are measured.

    The command gets an `Output`, and a `scope` of keywords: modules, layers, jobs, device, resume.
    """

    @functools.wraps(command)
    def with_scope(*arguments: Any, output: Output, cache: bool, **given: Any) -> Any:
        scope = {"modules": output.modules, **{name: given.pop(name) for name in _SCOPE}}
        scope["layers"] = scope["layers"] or ()
        with nullcontext() if cache else _without_cache():
            return command(*arguments, output=output, scope=scope, **given)

    measured = "Measure only modules whose name matches, such as '*.q_proj'; may be repeated."
    optioned: Callable[..., Any] = with_scope
    for option in reversed(_OPTIONS):
        optioned = option(optioned)
    return cast(_F, printed_options("--modules", measured)(optioned))


def _without_cache() -> Any:
    from subspace.analysis.known_directions import nothing_known

    return nothing_known()


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--layers",
        type=Numbers(0),
        metavar="0,8,16",
        help="Measure only the modules of these layers.  [default: all]",
    ),
    click.option(
        "--jobs",
        type=Whole(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Number of processes, each with one module at a time in memory; the numbers are the same.",
    ),
    click.option(
        "--device",
        default="cpu",
        show_default=True,
        metavar="NAME",
        help="Where the products with W are computed, as torch calls it: cpu, cuda, cuda:1. In float32 on each, so "
        "that results differ by about 1e-6 of the norm of W.",
    ),
    click.option(
        "--resume",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="File that keeps the result of every module as it comes; the same command with it goes on after an "
        "interruption.",
    ),
    click.option(
        "--cache/--no-cache",
        default=True,
        show_default=True,
        help="Keep the leading directions of base weights in ~/.cache/subspace (or where SUBSPACE_CACHE says, at most "
        "2 GB), for the next question about the same weights.",
    ),
)
_BASE = click.option(
    "--base",
    required=True,
    metavar="W",
    help="Base weights: one matrix, a file of weights, a model directory, or the word embedded for the model inside "
    "this package.",
)
_DELTA = click.option(
    "--delta",
    required=True,
    metavar="dW",
    help="Adapter of any known format, a pair A and B, or a dense delta_W.",
)
