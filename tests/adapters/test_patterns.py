"""Per-module settings as PEFT matches them, and no expression of a stranger that takes long."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from subspace.adapters.naming import peft_patterns
from subspace.adapters.naming.peft_patterns import Patterns
from subspace.errors import FormatError

names = st.lists(
    st.sampled_from(["model", "layers", "0", "1", "10", "self_attn", "q_proj", "v_proj", "q", "a+b", "x(y)"]),
    min_size=1,
    max_size=6,
).map(".".join)
pieces = st.sampled_from(
    [
        "model",
        "layers",
        "q_proj",
        "v_proj",
        "q",
        ".",
        r"\.",
        ".*",
        r"\d+",
        "[01]",
        "(0|1)",
        "^",
        "$",
        "?",
        "a+b",
        "_",
        "(?:q|v)",
    ]
)
keys = st.one_of(names, st.lists(pieces, min_size=1, max_size=7).map("".join))


@settings(max_examples=300, deadline=None)
@given(st.lists(keys, min_size=1, max_size=4, unique=True), names)
@example(["a+b"], "a+b")
@example(["proj"], "model.q_proj")
@example(["x(y)", "q"], "x(y)")
def test_match_is_that_of_peft(keys, module):
    values = {key: n for n, key in enumerate(keys)}
    try:
        patterns = Patterns(values, where="the test")
        got = patterns.match(module)
    except FormatError:
        return  # refused: not an expression, or one that may take long
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = values.get(get_pattern_key(values, module))
    assert got == expected
    assert (got is None) == (len(patterns.unmatched()) == len(keys))


@pytest.mark.parametrize(
    "key",
    [
        "(a+)+b", "(a|aa)+b", "(a*)*b", "((a)*)*b", "(a?)+b", r"(\w+\.)*x", "a?" * 30 + "a" * 30, "(a|a)" * 30 + "b",
        ".*" * 11 + "b", ".*.*.*.*.*.*b", "(?:a+){2,}b", "(?=(a+)+)b", "(?P<n>a+)*b", "a{1,50}{1,50}",
        "x" * 2000, "(", "*", "a{99999999999}", "(?P<n>a)(?P<n>b)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("module", ["a" * 60, "a.a." * 60 + "c", "a" * 990])
def test_no_expression_takes_long(key, module):
    """Where one is not cut off, it takes years and the suite's time limit ends it."""
    try:
        Patterns({key: 1}, where="rank_pattern of c.json").match(module)
    except FormatError as error:
        assert "rank_pattern of c.json" in str(error)
        assert "\n" not in str(error)


def test_many_expressions_have_one_budget():
    patterns = Patterns({f".*.*.*{n}": n for n in range(200)}, where="c.json")
    with pytest.raises(FormatError, match="exponential"):
        for n in range(2000):
            patterns.match(f"{'a' * 100}.{n}x")


@pytest.mark.parametrize(
    "key",
    ["q_proj", r".*\.layers\.(0|1|2|3)\..*\.q_proj", r"layers\.\d+\.self_attn\.[qkv]_proj", r"(?:a|b)?c"],
)
def test_expressions_in_use_are_cheap(key):
    patterns = Patterns({key: 1}, where="c.json")
    for n in range(2000):
        patterns.match(f"base.model.model.layers.{n}.self_attn.some_longer_name_proj")


def test_long_literal_names_are_matched_too():
    assert Patterns({"q": 3}, where="c.json").match("a." * 2000 + "q") == 3


def test_names_are_looked_up_and_not_tried_in_turn():
    """One after the other, this takes minutes."""
    values = {f"model.layers.{n}.q_proj": n for n in range(20_000)}
    patterns = Patterns(values, where="c.json")
    assert all(patterns.match(f"base.{module}") == n for module, n in values.items())
    assert patterns.match("base.model.layers.20000.q_proj") is None
    assert patterns.unmatched() == []


def test_a_name_and_an_expression_match_in_the_order_of_the_file():
    assert Patterns({"a.b": 1, ".*b": 2}, where="c.json").match("x.a.b") == 1
    assert Patterns({".*b": 2, "a.b": 1}, where="c.json").match("x.a.b") == 2
    assert Patterns({"q": 1, "a.q": 2}, where="c.json").match("x.a.q") == 1
    assert Patterns({"a.q": 2}, where="c.json").match("x.a_q") == 2, "a dot stands for any character"
    assert Patterns({"a.q": 2}, where="c.json").match("x.a\nq") is None, "but the end of a line"


@pytest.mark.parametrize("key", ["[qv]_proj{}", "layers.{}.(q|v)"])
def test_expressions_by_the_thousand_are_refused_in_time(key):
    with pytest.raises(FormatError, match=r"Too many patterns to match: 20000, in c\.json"):
        patterns = Patterns({key.format(n): n for n in range(20_000)}, where="c.json")
        for n in range(100_000):
            patterns.match(f"model.layers.{n}.o_proj")


@pytest.mark.parametrize("steps", [10**8, pytest.param(None, marks=pytest.mark.slow)], ids=["a tenth", "all"])
def test_names_with_dots_everywhere_are_refused_in_time(steps, monkeypatch):
    if steps is not None:  # a tenth of what is allowed takes a tenth of the time
        monkeypatch.setattr(peft_patterns, "_MOST_STEPS_IN_ALL", steps)
    values = {f"{n:016b}".replace("0", "."): n for n in range(2**16)}
    patterns = Patterns(values, where="c.json")
    with pytest.raises(FormatError, match="Too many patterns to match"):
        for _ in range(100_000):
            patterns.match("1" * 16)
