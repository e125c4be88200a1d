"""Rows of results as text and back, without a loss: one line of JSON, in which every number is the same to the bit.

JSON holds text, true and false, whole numbers, null, and floats, which Python writes so that they are read back as
they were. What it has no word for is an object with one key, the name of the kind. Only rows, flags and other plain
records of this package are ever made from text, so that a file of a stranger can do no harm.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np

from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["from_text", "to_text"]

_PACKAGE = "subspace."
_NUMBERS = frozenset("biufc")  # kinds of NumPy's types; objects are none of them


def to_text(value: Any) -> str:
    """A row, or several in a tuple, as one line of strict JSON in ASCII.

    Raises
    ------
    TypeError : it holds something that is not a plain value, an array, a flag or a row

    Examples
    --------
    >>> to_text((1, 0.5, None, float("nan")))
    '{"tuple": [1, 0.5, null, {"float": "nan"}]}'
    """
    return json.dumps(_plain(value), allow_nan=False)


def from_text(text: str) -> Any:
    """What `to_text` was given.

    Raises
    ------
    FormatError : it is not such a text

    Examples
    --------
    >>> from_text(to_text({"theta": np.array([0.5])}))
    {'theta': array([0.5])}
    """
    try:
        return _value(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, RecursionError) as error:
        raise FormatError(f"Not a row of a result: {shown(str(error), longest=120)}") from None


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is list:
        return [_plain(item) for item in value]
    if type(value) is float and math.isfinite(value):
        return value
    for kind, form in _FORMS.items():
        content = form(value)
        if content is not None:
            return {kind: content}
    raise TypeError(f"a value of type {type(value).__name__} cannot be kept")


def _float_text(value: Any) -> str | None:
    return repr(value) if type(value) is float else None


def _array_text(value: Any) -> list[Any] | None:
    if not isinstance(value, np.ndarray | np.generic):
        return None
    array = np.asarray(value)
    if array.dtype.kind not in _NUMBERS:
        raise TypeError(f"an array of {array.dtype} cannot be kept")
    content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return [array.dtype.str, list(array.shape), content, isinstance(value, np.generic)]


def _enum_text(value: Any) -> list[Any] | None:
    return [_name(type(value)), value.name] if isinstance(value, Enum) else None


def _row_text(value: Any) -> list[Any] | None:
    if not is_dataclass(value) or isinstance(value, type):
        return None
    return [_name(type(value)), {each.name: _plain(getattr(value, each.name)) for each in fields(value)}]


def _tuple_text(value: Any) -> list[Any] | None:
    return [_plain(item) for item in value] if type(value) is tuple else None


def _named_text(value: Any) -> list[Any] | None:
    if not isinstance(value, tuple) or not hasattr(value, "_fields"):
        return None
    return [_name(type(value)), [_plain(item) for item in value]]


def _dict_text(value: Any) -> list[Any] | None:
    return [[_plain(k), _plain(v)] for k, v in value.items()] if isinstance(value, Mapping) else None


_FORMS: dict[str, Callable[[Any], Any]] = {
    "float": _float_text,
    "array": _array_text,
    "enum": _enum_text,
    "row": _row_text,
    "tuple": _tuple_text,
    "named": _named_text,
    "dict": _dict_text,
}


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    return _KINDS[kind](content)


def _array(content: list[Any]) -> Any:
    dtype, shape, text, scalar = content
    kind = np.dtype(dtype)
    if kind.kind not in _NUMBERS:
        raise ValueError(f"an array of {dtype}")
    array = np.frombuffer(base64.b64decode(text, validate=True), kind).reshape(shape).copy()
    return array[()] if scalar else array


def _row(content: list[Any]) -> Any:
    name, own = content
    cls = _class(name)
    if not hasattr(cls, "__dataclass_fields__"):
        raise ValueError(f"{name} is not a row")
    return cls(**{key: _value(item) for key, item in own.items()})


def _enum(content: list[Any]) -> Any:
    name, member = content
    cls = _class(name)
    if not issubclass(cls, Enum):
        raise ValueError(f"{name} is not an enumeration")
    return cls[member]


def _named(content: list[Any]) -> Any:
    name, items = content
    cls = _class(name)
    if not (issubclass(cls, tuple) and hasattr(cls, "_fields")):
        raise ValueError(f"{name} is not a named tuple")
    return cls(*map(_value, items))


def _float(text: str) -> float:
    if text not in {"nan", "inf", "-inf"}:
        raise ValueError(f"a number {text}")
    return float(text)


_KINDS: dict[str, Callable[[Any], Any]] = {
    "float": _float,
    "array": _array,
    "enum": _enum,
    "row": _row,
    "named": _named,
    "tuple": lambda items: tuple(map(_value, items)),
    "dict": lambda pairs: {_value(key): _value(item) for key, item in pairs},
}


def _name(cls: type) -> str:
    name = f"{cls.__module__}:{cls.__qualname__}"
    if not name.startswith(_PACKAGE):
        raise TypeError(f"a value of type {cls.__name__} cannot be kept")
    return name


def _class(name: str) -> Any:
    """A class of this package by the name of its module and its own."""
    module, _, attribute = name.partition(":")
    if not module.startswith((f"{_PACKAGE}results.", f"{_PACKAGE}flags", f"{_PACKAGE}geometry.")):
        raise ValueError(f"{name} is not of a result")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, type):
        raise ValueError(f"{name} is not a class")
    return found
