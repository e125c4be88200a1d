"""Names matched by suffix against the definition, tried on every pair."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from subspace.adapters import match_modules
from subspace.adapters.naming.modules import Modules
from subspace.adapters.naming.sorting import in_order

names = st.lists(st.sampled_from(["a", "b", "10", "2", "q", "aq"]), min_size=1, max_size=4).map(".".join)
some_names = st.lists(names, max_size=12, unique=True)


def same(name, candidates):
    if name in candidates:
        return {name}
    return {other for other in candidates if other.endswith(f".{name}") or name.endswith(f".{other}")}


@given(names, some_names)
def test_one_name(name, candidates):
    assert set(Modules(candidates).same(name, most=100)) == same(name, candidates)


@given(some_names, some_names)
def test_pairs_are_those_that_name_each_other_alone(first, second):
    matched = match_modules(first, second)
    assert [one for one, _ in matched.pairs] + matched.only_first == sorted(
        first, key=lambda name: name in matched.only_first
    )
    assert sorted([other for _, other in matched.pairs] + matched.only_second) == sorted(second)
    if len(first) == len(second) == 1:
        assert matched.pairs
        return
    for one, other in matched.pairs:
        assert other in same(one, second)
        left = [name for name in second if name not in first]
        assert one == other or same(one, left) == {other}
    for name in matched.only_first:
        assert name not in second
    turned = match_modules(second, first).pairs
    assert {(one, other) for other, one in turned} == set(matched.pairs) or _one_sided(first, second)


def _one_sided(first, second):
    """A name with several answers one way may be the only answer the other way."""
    rest = [n for n in first if n not in second], [n for n in second if n not in first]
    return any(len(same(name, rest[1])) > 1 for name in rest[0]) or any(
        len(same(name, rest[0])) > 1 for name in rest[1]
    )


@given(st.lists(st.text(alphabet="ab.0129²", max_size=6)))
def test_the_order_is_total(texts):
    assert in_order(texts) == in_order(reversed(texts))


def test_numbers_are_numbers():
    assert in_order(["h.10", "h.9", "h.01", "h.1", "h", "h.1.q"]) == [
        "h",
        "h.01",
        "h.1",
        "h.1.q",
        "h.9",
        "h.10",
    ]
