"""Rows of every result as text and back, to the bit."""

import dataclasses
import importlib
import json
import math
import pkgutil
import types
import typing

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import subspace.results
from subspace.errors import FormatError
from subspace.flags import Flag
from subspace.results.result import Result, Row
from subspace.results.row_text import from_text, to_text

_AWKWARD = [0.1, math.nan, math.inf, -math.inf, -0.0, 5e-324, 1 / 3]


def _classes():
    """All rows, and the records that stand in them."""
    for found in pkgutil.iter_modules(subspace.results.__path__):
        module = importlib.import_module(f"subspace.results.{found.name}")
        for cls in vars(module).values():
            own = isinstance(cls, type) and cls.__module__ == module.__name__
            if own and dataclasses.is_dataclass(cls) and issubclass(cls, Row) and not issubclass(cls, Result):
                yield cls


def _made(kind, number=0):
    """A value of an annotated type, awkward where it can be."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        some = [each for each in arguments if each is not type(None)]
        return _made(some[0], number)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(_made(arguments[0], number + n) for n in range(3))
        return tuple(_made(each, number + n) for n, each in enumerate(arguments))
    if np.ndarray in (origin, kind) or origin is npt.NDArray:  # NumPy 2.5 has it as an alias
        return np.array([_AWKWARD, _AWKWARD[::-1]]).T
    if origin is not None and issubclass(origin, typing.Mapping):
        return {_made(arguments[0], number): _made(arguments[1], number)}
    if origin is not None and issubclass(origin, typing.Sequence):
        return [_made(arguments[0], number + n) for n in range(2)]
    if kind in (Flag,):
        return list(Flag)[number]
    if dataclasses.is_dataclass(kind):
        return _instance(kind)
    plain = {int: 7, str: "a \u00e9 \udc80 \n", bool: True, float: _AWKWARD[number % len(_AWKWARD)]}
    return plain.get(kind, _AWKWARD[0])


def _instance(cls):
    # names that a module imports for type checkers alone, and those of its own
    names = {
        **vars(typing),
        "NDArray": npt.NDArray,
        "np": np,
        **vars(importlib.import_module(cls.__module__)),
    }
    known = {f.name: eval(f.type, names) for f in dataclasses.fields(cls)}
    return cls(**{f.name: _made(known[f.name], n) for n, f in enumerate(dataclasses.fields(cls)) if f.init})


def _same(one, other):
    """Equal types and equal bits, all the way down."""
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, np.ndarray | np.generic):
        one, other = np.asarray(one), np.asarray(other)
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return _same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float):
        return np.float64(one).tobytes() == np.float64(other).tobytes()
    return one == other


def test_there_are_rows_to_try():
    assert len(list(_classes())) >= 6


@pytest.mark.parametrize("cls", list(_classes()), ids=lambda cls: cls.__name__)
def test_a_row_of_every_result_comes_back_to_the_bit(cls):
    row = _instance(cls)
    text = to_text((row,))
    assert "\n" not in text
    assert text.isascii()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not strict JSON"))
    assert _same((row,), from_text(text))


def test_the_comparison_of_this_test_sees_one_bit():
    assert not _same(np.array([0.1]), np.array([np.nextafter(0.1, 1)]))
    assert not _same(0.0, -0.0)
    assert not _same((1,), [1])


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(Flag)),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
))  # fmt: skip
def test_any_plain_value_comes_back(value):
    back = from_text(to_text(value))
    assert repr(back) == repr(value)
    assert _same(value, back) or "nan" in repr(value)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.1),
        np.float64(0.1),
        np.int64(3),
        np.arange(6, dtype=">f4").reshape(2, 3).T,
        np.empty((0, 3)),
    ],
)
def test_numpy_keeps_its_types(value):
    assert _same(from_text(to_text(value)), value)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), pytest.raises])
def test_what_cannot_be_kept_is_an_error_and_not_something_else(value):
    with pytest.raises(TypeError, match="cannot be kept"):
        to_text(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "NaN x", '{"a": 1, "b": 2}', '{"row": ["os:system", {}]}', '{"row": ["subspace.hub:local", {}]}',
        '{"enum": ["subspace.results.result:Row", "x"]}', '{"row": ["subspace.results.result:json", {}]}',
        '{"array": ["O", [1], "AAAA", false]}', '{"array": ["<f8", [3], "AAAA", false]}', '{"float": "1e5"}',
        '{"row": ["subspace.results.amplification:RankAmplification", {"no": 1}]}',
        '{"named": ["subspace.flags:Flag", []]}',
        '{"row": ["subspace.results.nothing:Row", {}]}', "[" * 100000,
    ],
)  # fmt: skip
def test_text_of_a_stranger_is_refused_and_runs_nothing(text):
    with pytest.raises(FormatError, match="Not a row of a result"):
        from_text(text)
