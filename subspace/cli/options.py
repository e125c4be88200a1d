"""The register of options that several commands share, and the types of their values."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

__all__ = [
    "Numbers",
    "adapter_options",
    "embedded_too",
    "enabled",
    "map_option",
    "output_options",
    "pair_options",
    "per_side",
]

_F = TypeVar("_F", bound=Callable[..., Any])


if TYPE_CHECKING:
    _Numbers = click.ParamType[tuple[int, ...]]
else:
    _Numbers = click.ParamType


class Numbers(_Numbers):
    """A comma-separated list of whole numbers between two limits, such as 4,64."""

    name = "N,N,..."

    def __init__(self, least: int, most: float = math.inf) -> None:
        self._least, self._most = least, most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read the words of the list."""
        words = value.split(",") if isinstance(value, str) else value
        try:
            numbers = tuple(int(word) for word in words)
        except ValueError:
            return self.fail(f"{value!r} is not a list of whole numbers separated by commas", param, ctx)
        if not all(self._least <= number <= self._most for number in numbers):
            limits = f"at least {self._least}" if self._most == math.inf else f"{self._least} or {self._most}"
            return self.fail(f"every number must be {limits}: got {value!r}", param, ctx)
        return numbers


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not finite", ctx, param)
    return value


def embedded_too(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Where the embedded base is, for the word that `subspace train --model` takes; any path but that as it is."""
    if value != "embedded" or os.path.lexists(value):
        return value
    from subspace.training.embedded import FOLDER

    return str(FOLDER)


def output_options(command: _F) -> _F:
    """Add --json and --csv, of which the last one given counts."""
    command = click.option(
        "--csv", "output", flag_value="csv", help="Print comma-separated values, one row per module."
    )(command)
    command = click.option("--json", "output", flag_value="json", help="Print strict JSON.")(command)
    return click.option(
        "--table", "output", flag_value="table", default="table", help="Print a table (the default)."
    )(command)


def adapter_options(command: _F) -> _F:
    """Add what a file may not say: --scale, --adapter-name, --enable-lora."""
    named = click.option("--adapter-name", metavar="NAME", help="Which adapter, where there are several.")
    return _scale(named(_enable_lora(command)))


def pair_options(command: _F) -> _F:
    """Add the same for two adapters: --adapter-name may be given twice."""
    named = click.option(
        "--adapter-name",
        multiple=True,
        metavar="NAME",
        help="Which adapter, where there are several. Twice: of FIRST and of SECOND.",
    )
    return _scale(named(_enable_lora(command)))


def per_side(names: tuple[str, ...]) -> tuple[str | None, str | None]:
    """--adapter-name of the first and of the second adapter."""
    if len(names) > 2:
        raise click.UsageError("--adapter-name is given once, or twice: of FIRST and of SECOND")
    return (names[0], names[-1]) if names else (None, None)


def map_option(of: str) -> Callable[[_F], _F]:
    """Add --map, that of the adapter called `of`, as a dictionary `rename`."""
    return click.option(
        "--map",
        "rename",
        multiple=True,
        callback=_as_map,
        metavar="OLD=NEW",
        help=f"Rename modules of {of}, a module or a dotted prefix; may be repeated.",
    )


def _as_map(ctx: click.Context, param: click.Parameter, rules: tuple[str, ...]) -> dict[str, str]:
    made: dict[str, str] = {}
    for rule in rules:
        old, equals, new = rule.partition("=")
        if not equals or old == new:
            raise click.BadParameter(f"{rule!r} is not OLD=NEW with two different names", ctx, param)
        if made.setdefault(old, new) != new:
            raise click.BadParameter(f"{old!r} is renamed twice", ctx, param)
    return made


def _enable_lora(command: _F) -> _F:
    return click.option(
        "--enable-lora",
        type=Numbers(0, 1),
        metavar="1,0,1",
        help="Which groups of a fused layer are adapted (loralib's enable_lora): 1,0,1 is q and v.",
    )(command)


def _scale(command: _F) -> _F:
    return click.option(
        "--scale",
        type=float,
        callback=_finite,
        metavar="X",
        help="delta_W = X * B A, where the file does not say it (alpha / r; rsLoRA: alpha / sqrt(r)).",
    )(command)


def enabled(groups: tuple[int, ...] | None) -> tuple[bool, ...] | None:
    """Groups of --enable-lora as booleans."""
    return tuple(bool(on) for on in groups) if groups else None
