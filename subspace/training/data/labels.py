"""Labels as files spell them, and the classes that they name."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from subspace.text import shown
from subspace.training.data.jsonrows import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["class_name", "missing", "sorted_names"]

_NO_LABELS = ("nan", "null", "<na>", "n/a", "#n/a")
_INTEGER = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def class_name(value: object) -> str | None:
    """Return the name of the class that a label stands for; None for a label that is missing or blank.

    A whole number names the same class as an integer, a float or a text, for pandas writes a column of integers with
    gaps as floats.

    Raises
    ------
    ValueError
        With what was found, for a label that is not a class: a number with a fraction, a list, an object.

    Examples
    --------
    >>> class_name(1), class_name("1.0"), class_name(True), class_name(" neg "), class_name("")
    ('1', '1', 'true', 'neg', None)
    """
    if value is None:
        return None
    if isinstance(value, str):
        name = value.strip()
        return _whole(float(name), name) if _FRACTION.fullmatch(name) else name or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return "nan"
        return _whole(value, repr(value))
    raise ValueError(kind_of(value))


def missing(names: Iterable[str | None]) -> set[str | None]:
    """Return what stands for a label that is missing, among the names of classes as `class_name` gives them.

    An empty label, nan and null as programs write them, and -1, which data sets have for labels that are kept secret or
    that nobody agreed on. Where all others are numbers from 1 on, -1 is the opposite of 1 and a class.

    Examples
    --------
    >>> missing(["0", "1", "-1"]), missing(["1", "-1"]), missing(["yes", "nan", "no"])
    ({'-1'}, set(), {'nan'})
    """
    distinct = set(names)
    found = {name for name in distinct if name is None or name.lower() in _NO_LABELS}
    others = distinct - found - {"-1"}
    opposite = others and all(_INTEGER.fullmatch(name or "") and int(name or 0) > 0 for name in others)
    return found | (set() if opposite else {"-1"} & distinct)


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return distinct names, by value if all are integers, else as text.

    Examples
    --------
    >>> sorted_names(["10", "9", "10"]), sorted_names(["b", "10", "9"])
    (('9', '10'), ('10', '9', 'b'))
    """
    distinct = sorted(set(names))
    if all(map(_INTEGER.fullmatch, distinct)):
        distinct.sort(key=int)
    return tuple(distinct)


def _whole(number: float, text: str) -> str:
    if not number.is_integer():
        raise ValueError(f"the number {shown(text, longest=40)}")
    return str(int(number))
