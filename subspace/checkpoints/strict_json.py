"""JSON as the standard defines it and no more, for untrusted text."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["parse"]

# a short text cannot expand to much; a long one must have the shape of data, not of brackets, before it is parsed
_LONG_TEXT = 20_000_000
_MOST_DIGITS = 4000  # Python refuses to convert more than 4300


def parse(text: str) -> Any:
    """Value of a JSON text; ValueError with a short reason for anything without a single meaning.

    Refused: duplicate keys (two parsers, two answers), NaN and Infinity, numbers that overflow to infinity,
    integers of thousands of digits, halves of surrogate pairs, and nesting beyond what the parser can follow.

    Examples
    --------
    >>> parse('{"r": 4}')
    {'r': 4}
    >>> parse('{"r": 4, "r": 8}')
    Traceback (most recent call last):
    ValueError: the key r appears twice
    """
    if len(text) > _LONG_TEXT and (
        text.count("[") + text.count("{") > len(text) // 16 or text.count(",") > len(text) // 8
    ):
        raise ValueError("a text with more brackets or commas than data needs")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError:
        raise ValueError("text with half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice} appears twice")
    return mapping


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits is out of range")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is out of range")
    return number
