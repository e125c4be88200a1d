"""Dose and response with real training: the less two texts have in common, the less alike their adapters are."""

from __future__ import annotations

from statistics import median

import pytest

import subspace
from subspace.study.trio import rows_of
from subspace.training import Job, LoRA, Recipe, train
from subspace.training.data import documentation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def doses(tmp_path_factory):
    """r = 8 on one half of Python's help topics against r = 8 of other seeds on the other half and its controls."""
    folder = tmp_path_factory.mktemp("dose")
    topics = documentation().texts[0].splitlines(keepends=True)
    for n, half in enumerate((topics[::2], topics[1::2])):
        (folder / f"half-{n}.txt").write_text("".join(half), encoding="utf-8")
    first, second = (str(folder / f"half-{n}.txt") for n in range(2))
    texts = {
        "first": first,
        "other half": second,
        "words": f"scrambled-words:{second}",
        "characters": f"scrambled:{second}",
        "random": f"uniform:{second}",
    }
    for seed, (name, text) in enumerate(texts.items()):
        recipe = Recipe(steps=120, batch=8, length=64, lr=3e-3, data_seed=seed, seed=seed, held_out=0.0)
        method = LoRA(r=8, alpha=16.0, seed=seed)
        train(Job(data=text, method=method, recipe=recipe, threads=1, accounts=False), folder / name)
    return {name: subspace.compare(folder / "first", folder / name, side=("a", "b")) for name in texts}


def test_the_order_of_the_texts_is_that_of_cosine_and_of_b(doses):
    cosine = [
        median(row.cosine for row in rows_of(doses[name])) for name in ("other half", "words", "characters")
    ]
    b = [
        median(row.phi_11 for row in rows_of(doses[name], "b"))
        for name in ("other half", "words", "characters")
    ]
    assert cosine == sorted(cosine, reverse=True) and cosine[0] > 2 * cosine[2], cosine
    assert b == sorted(b, reverse=True) and b[0] > 2 * b[2], b


def test_random_letters_are_not_said_to_have_taught_the_same_and_the_other_half_is(doses):
    assert "learned much of the same" in doses["other half"].headline()
    assert "learned much of the same" not in doses["random"].headline()


def test_what_modules_with_the_same_input_share_does_not_depend_on_the_text(doses):
    control = {name: median(row.phi_control for row in rows_of(doses[name])) for name in doses}
    excess = {name: median(row.excess for row in rows_of(doses[name])) for name in doses}
    assert max(control.values()) - min(control.values()) < 0.25, control
    assert excess["other half"] > 0.1 > excess["random"], excess
