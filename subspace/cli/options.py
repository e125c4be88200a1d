"""The register of options that several commands share, and the types of their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

__all__ = ["Numbers", "adapter_options", "output_options"]

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
    command = click.option(
        "--enable-lora",
        type=Numbers(0, 1),
        metavar="1,0,1",
        help="Which groups of a fused layer are adapted (loralib's enable_lora): 1,0,1 is q and v.",
    )(command)
    command = click.option(
        "--adapter-name", metavar="NAME", help="Which adapter, of a file that holds several."
    )(command)
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
