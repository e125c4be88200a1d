"""What a user chooses of a merge, checked before anything is read: settings of the method, weights, scales."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from subspace.checkpoints.narrowing import WRITTEN
from subspace.errors import ValueRangeError
from subspace.geometry.merger import Merger, Settings
from subspace.text import counted, listed, shown

__all__ = ["ALLOWED", "require_words", "scales_of", "settings_of", "weights_of"]

# what `allow` takes: a step that changes delta_W and is refused unless asked for
ALLOWED = ("dora", "init")
_CHOICES = {
    "sign_method": ("total", "frequency"),
    "entries": ("updates", "factors"),
    "inner": ("ties", "sum"),
}


def settings_of(method: Merger, **given: Any) -> Settings:
    """The settings, each of which the method has."""
    used = {name: value for name, value in given.items() if value is not None}
    foreign = [name for name in used if name not in method.settings]
    if foreign:
        has = f"has {listed(method.settings, most=9)}" if method.settings else "has no settings"
        raise ValueRangeError(f"The method {method.name} takes no `{foreign[0]}`; it {has}")
    for name, words in _CHOICES.items():
        if name in used and used[name] not in words:
            raise ValueRangeError(
                f"Unknown word {shown(repr(used[name]))}: give `{name}` one of {listed(words)}"
            )
    _require_numbers(used)
    if used.get("entries") == "factors" and (given["rank"] is not None or given["energy"] is not None):
        raise ValueRangeError(
            "The factors of all adapters are merged at their own rank; leave `rank` and `energy` out"
        )
    return Settings(**{"density": method.density, **used})


def _require_numbers(used: Mapping[str, Any]) -> None:
    for name, least in (("rank", 1), ("seed", 0)):
        value = used.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueRangeError(
                f"Invalid {name} {shown(repr(value))}: give `{name}` a whole number of at least {least}"
            )
    for name in ("energy", "density"):
        value = used.get(name, 1.0)
        if not isinstance(value, int | float) or not 0 < value <= 1:
            raise ValueRangeError(
                f"Invalid {name} {shown(repr(value))}: give `{name}` a number in (0, 1], such as 0.5"
            )


def require_words(dtype: str, allow: Collection[str]) -> None:
    """Check the type of the stored factors and the steps that are allowed."""
    if dtype not in WRITTEN:
        raise ValueRangeError(
            f"Invalid type {shown(repr(dtype))}: give `dtype` one of {listed(WRITTEN, most=9)}"
        )
    unknown = [word for word in allow if word not in ALLOWED]
    if unknown:
        raise ValueRangeError(
            f"Unknown step {shown(repr(unknown[0]))} to allow: `allow` takes {listed(ALLOWED, most=9)}"
        )


def weights_of(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """The weight of each of two or more adapters."""
    if count < 2:
        raise ValueRangeError(
            f"Nothing to merge: {counted(count, 'adapter')}; give two or more, or write one in another format with "
            "subspace convert"
        )
    given = (1.0,) * count if weights is None else tuple(float(each) for each in weights)
    if len(given) != count:
        raise ValueRangeError(
            f"{counted(len(given), 'weight')} for {count} adapters; give `weights` one number for each"
        )
    wrong = [each for each in given if not math.isfinite(each) or each == 0]
    if wrong:
        raise ValueRangeError(
            f"Invalid weight {wrong[0]}: give `weights` finite numbers other than 0; leave out an adapter that counts 0"
        )
    return given


def scales_of(scale: Any, count: int) -> list[float | None]:
    """The scale of each adapter from one for all, one for each, or none."""
    one = scale is None or isinstance(scale, int | float | np.number)
    given: list[float | None] = [scale] * count if one else list(scale)
    if len(given) != count:
        raise ValueRangeError(
            f"{counted(len(given), 'scale')} for {count} adapters; give `scale` once for all, or one for each"
        )
    return given
