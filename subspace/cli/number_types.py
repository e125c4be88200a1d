"""Types of the numbers of options, whose names help and errors can show; they need no NumPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

__all__ = ["Groups", "Number", "Numbers", "Real", "Reals", "Whole"]

if TYPE_CHECKING:
    _Numbers = click.ParamType[tuple[int, ...]]
    _Reals = click.ParamType[tuple[float, ...]]
    _Groups = click.ParamType[tuple[bool, ...] | tuple[str, ...]]
else:
    _Numbers = _Reals = _Groups = click.ParamType


class Whole(click.IntRange):
    """A whole number between two limits, by a name that help and errors can show."""

    name = "integer"


class Real(click.types.FloatParamType):
    """A number without limits, by a name that help and errors can show."""

    name = "number"


class Number(click.FloatRange):
    """A number between two limits, by a name that help and errors can show."""

    name = "number"


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
            return self.fail(f"every number in {value!r} must be {limits}", param, ctx)
        return numbers


class Reals(_Reals):
    """A comma-separated list of finite numbers of either sign, such as 1,-0.5."""

    name = "X,X,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Read the words of the list."""
        words = value.split(",") if isinstance(value, str) else value
        try:
            numbers = tuple(float(word) for word in words)
        except ValueError:
            return self.fail(f"{value!r} is not a list of numbers separated by commas", param, ctx)
        if not all(map(math.isfinite, numbers)):
            return self.fail(f"every number in {value!r} must be finite", param, ctx)
        return numbers


class Groups(_Groups):
    """Groups of a fused layer: comma-separated names such as q,v, or 0 and 1 as loralib's enable_lora."""

    name = "groups"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[bool, ...] | tuple[str, ...]:
        """Read the words of the list; which names there are is known to the method."""
        if not isinstance(value, str):
            return tuple(value)
        words = tuple(word.strip() for word in value.split(","))
        if all(word in ("0", "1") for word in words):
            return tuple(word == "1" for word in words)
        if any(word.isdigit() or not word for word in words):
            return self.fail(f"{value!r} is neither names such as q,v nor 0 and 1 such as 1,0,1", param, ctx)
        return words
