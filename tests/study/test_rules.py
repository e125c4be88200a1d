"""Every rule gives every verdict that it can, on numbers made up for it."""

from __future__ import annotations

import pytest

from subspace.study import rules
from subspace.study.rules import AGREES, DIFFERS, NOISE, PARTLY, UNTOLD, judged

# delta_W's projection over that of random directions: above it, and the same
_ABOVE, _AT = ([3.0, 2.0], [1.5, 1.5]), ([1.0, 0.9], [1.0, 1.2, 1.0])

_RULES = [
    (rules.CONTAINED, ([0.9, 0.6, 0.3], [0.5, 0.4, 0.1], [1, 2, 1]), AGREES),
    (rules.CONTAINED, ([0.9, 0.6, 0.3], [0.5, 0.4, 0.1], [4, 5, 4]), PARTLY),
    (rules.CONTAINED, ([0.9, 0.6, 0.3], [0.15, 0.15, 0.15], [1, 1, 1]), PARTLY),
    (rules.CONTAINED, ([0.2, 0.2, 0.9], [0.2, 0.2, 0.2], [1, 1, 1]), PARTLY),
    (rules.CONTAINED, ([0.9, 0.9, 0.9], [0.5, 0.5, 0.5], [1, 0, 0]), DIFFERS),
    # what modules with the same input share as well
    (rules.CONTAINED, ([0.9, 0.9, 0.9], [0.05, 0.0, 0.02], [1, 1, 1]), DIFFERS),
    (rules.CONTAINED, ([0.9], [], [1]), UNTOLD),
    (rules.HIGHER_IN_Q, ([3, 3, 3, 1], [1, 1, 1, 1], [9, 9, 9, 9], [8, 8, 8, 9]), AGREES),
    (rules.HIGHER_IN_Q, ([3, 3, 3, 1], [1, 1, 1, 1], [8, 8, 8, 8], [9, 9, 9, 9]), PARTLY),
    (rules.HIGHER_IN_Q, ([9, 1, 1, 1], [1, 1, 2, 2], [9, 9, 9, 9], [8, 8, 8, 8]), PARTLY),
    (rules.HIGHER_IN_Q, ([1, 1], [2, 2], [9, 9], [8, 8]), DIFFERS),
    (rules.HIGHER_IN_Q, ([1, 2], [2, 1], [9, 9], [8, 8]), UNTOLD),
    (rules.HIGHER_IN_Q, ([1, 2], [0, 0], [], []), UNTOLD),
    (rules.SEEDS_AGREE, ([3, 1, 1], [0.4] * 3, [0, 0, 0]), AGREES),
    (rules.SEEDS_AGREE, ([3, 1, 1], [0.4] * 3, [0, 1, 0]), PARTLY),
    (rules.SEEDS_AGREE, ([3, 1, 1], [0.15] * 3, [0, 0, 0]), PARTLY),
    (rules.SEEDS_AGREE, ([3, 0], [0.4] * 2, [0, 0]), PARTLY),
    (rules.SEEDS_AGREE, ([3, 3, 3], [0.02] * 3, [0, 0, 0]), DIFFERS),
    (rules.SEEDS_AGREE, ([0, 0, 1], [0.4] * 3, [0, 0, 0]), DIFFERS),
    (rules.SEEDS_AGREE, ([1], [0.4], [float("nan")]), UNTOLD),
    (rules.CORRELATED, ([5.0] * 9 + [0.0], [3.0] * 10), AGREES),
    (rules.CORRELATED, ([5.0] * 10, [3.0] * 7 + [0.0] * 3), PARTLY),
    (rules.CORRELATED, ([0.0, 0.0, 3.0], [1.0, 1.0, 1.0]), DIFFERS),
    (rules.CORRELATED, ([], [3.0]), UNTOLD),
    (rules.NOT_EMPHASISED, ([0.1, 0.2], [0.4, 0.3], *_ABOVE), AGREES),
    (rules.NOT_EMPHASISED, ([0.1, 0.2], [0.6, 0.7], *_ABOVE), PARTLY),
    (rules.NOT_EMPHASISED, ([0.8], [0.6], *_ABOVE), DIFFERS),
    (rules.NOT_EMPHASISED, ([float("nan")], [0.6], *_ABOVE), UNTOLD),
    (rules.NOT_EMPHASISED, ([0.1, 0.2], [0.4, 0.3], *_AT), UNTOLD),
    (rules.AMPLIFIES_MOST_AT_LOW_RANK, ([21.5, 5.0], [1.9, 1.0]), AGREES),
    (rules.AMPLIFIES_MOST_AT_LOW_RANK, ([1.5, 1.4], [1.0, 1.0]), PARTLY),
    (rules.AMPLIFIES_MOST_AT_LOW_RANK, ([3.0, 3.0], [4.0, 4.0]), DIFFERS),
    (rules.AMPLIFIES_MOST_AT_LOW_RANK, ([], []), UNTOLD),
    (rules.NOT_THE_TOP, ([0.2, 0.1], [0.1, 0.1]), AGREES),
    (rules.NOT_THE_TOP, ([0.3, 0.4], [0.1, 0.1]), PARTLY),
    (rules.NOT_THE_TOP, ([0.9], [0.1]), DIFFERS),
    (rules.NOT_THE_TOP, ([], []), UNTOLD),
    (rules.SMALL_RANKS, ({1: 1.0, 4: 1.0, 64: 1.01},), AGREES),
    (rules.SMALL_RANKS, ({1: 0.5, 4: 1.0, 64: 1.01},), PARTLY),
    (rules.SMALL_RANKS, ({1: 0.5, 4: 0.7, 64: 1.0},), DIFFERS),
    (rules.SMALL_RANKS, ({1: None, 4: 0.7, 64: 1.0},), UNTOLD),
    (rules.SMALL_RANKS, ({1: -0.1, 4: -0.2, 64: -0.1},), UNTOLD),
    (rules.BEST_BUDGET, ({"q": 0.2, "k": 0.1, "qk": 0.3, "qv": 0.9, "qkvo": 0.95}, 0.05), AGREES),
    (rules.BEST_BUDGET, ({"q": 0.2, "k": 0.1, "qk": 0.3, "qv": 0.9, "qkvo": 1.2}, 0.05), PARTLY),
    (rules.BEST_BUDGET, ({"q": 0.9, "k": 0.1, "qk": 0.3, "qv": 0.8, "qkvo": 1.2}, 0.05), DIFFERS),
    (rules.BEST_BUDGET, ({"q": 0.9, "k": 0.1, "qk": 0.3, "qv": 0.8, "qkvo": 1.2}, None), UNTOLD),
]


@pytest.mark.parametrize(("rule", "numbers", "verdict"), _RULES)
def test_the_verdict_follows_from_the_numbers(rule, numbers, verdict):
    assert rule(*numbers) == verdict


def test_each_rule_can_give_each_verdict():
    given = {(id(rule), verdict) for rule, _, verdict in _RULES}
    made = [each for each in vars(rules).values() if isinstance(each, rules.Rule)]
    assert len(made) == 9
    assert {(id(rule), verdict) for rule in made for verdict in rules.VERDICTS if verdict != NOISE} == given


def test_each_rule_says_when_it_agrees():
    for rule in (each for each in vars(rules).values() if isinstance(each, rules.Rule)):
        assert rule.text.startswith("Agrees if "), rule.text


@pytest.mark.parametrize(
    ("here", "controls", "verdict"),
    [
        (AGREES, [DIFFERS, UNTOLD, DIFFERS], AGREES),
        (AGREES, [PARTLY, UNTOLD, DIFFERS], AGREES),
        (AGREES, [DIFFERS, UNTOLD, AGREES], NOISE),
        (PARTLY, [AGREES], NOISE),
        (PARTLY, [PARTLY], NOISE),
        (PARTLY, [DIFFERS], PARTLY),
        (DIFFERS, [AGREES], DIFFERS),
        (UNTOLD, [AGREES], UNTOLD),
        (AGREES, [], AGREES),
    ],
)
def test_what_noise_meets_as_well_is_no_finding(here, controls, verdict):
    assert judged(here, controls) == verdict
