"""Options of one kind each, for a command with many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from subspace.cli.number_types import Whole

__all__ = ["names", "number", "one_of", "whole", "with_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def with_options(command: _F, *options: Callable[[_F], _F]) -> _F:
    """Add options, which the help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def one_of(name: str, *choices: str, help: str) -> Callable[[_F], _F]:
    """Return an option of some words, of which the first is the default."""
    return click.option(name, type=click.Choice(choices), default=choices[0], show_default=True, help=help)


def number(name: str, kind: Any, default: float, help: str) -> Callable[[_F], _F]:
    """Return an option of a number, whose default the help shows."""
    return click.option(name, type=kind, default=default, show_default=True, help=help)


def whole(name: str, default: int, help: str, *, least: int = 1) -> Callable[[_F], _F]:
    """Return an option of a whole number, whose default the help shows."""
    return number(name, Whole(least), default, help)


def names(flag: str, name: str, help: str) -> Callable[[_F], _F]:
    """Return an option of names, which may be repeated."""
    return click.option(flag, name, multiple=True, metavar="NAME", help=help)
