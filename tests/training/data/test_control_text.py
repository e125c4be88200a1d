"""Controls: what is taken out of a text is gone, everything else stays, and every call gives the same."""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.errors import FileError, FormatError, ValueRangeError
from subspace.training.data import Examples, documentation, load_examples
from subspace.training.data.control_text import CONTROLS, control_examples

_WORDS = "\n".join(f"line {n} has words {n * n}, caf\u00e9 \U0001f600" for n in range(60))


def _examples(*texts, labels=None):
    return Examples("x.txt", texts, labels, () if labels is None else ("no", "yes"), (), "0")


@pytest.mark.parametrize("kind", CONTROLS)
@given(texts=st.lists(st.text(min_size=1), min_size=1))
def test_every_text_keeps_its_length_and_a_shuffled_one_its_characters(kind, texts):
    examples = _examples(*texts)
    control = control_examples(examples, kind)
    lengths = [len(text) for text in texts]
    assert control == control_examples(examples, kind)
    if kind != "scrambled-words":
        assert [len(text) for text in control.texts] == lengths
    else:
        assert [re.sub(r"\S+", "x", text) for text in control.texts] == [
            re.sub(r"\S+", "x", text) for text in texts
        ]
    if kind == "uniform":
        assert set("".join(control.texts)) <= set("".join(texts))
    else:
        assert Counter("".join(control.texts)) == Counter("".join(texts))


def test_a_control_says_nothing_that_the_text_says():
    pairs = {kind: control_examples(_examples(_WORDS), kind).texts[0] for kind in CONTROLS}
    assert pairs["scrambled-words"].split() != _WORDS.split()
    assert sorted(pairs["scrambled-words"].split()) == sorted(_WORDS.split())
    for kind in ("scrambled", "uniform"):
        same = sum(a == b for a, b in zip(pairs[kind], _WORDS, strict=True))
        assert same < 0.15 * len(_WORDS) and "words" not in pairs[kind]
    # as many of the rarest character as of the commonest, within chance
    counts = Counter(pairs["uniform"])
    assert max(counts.values()) < 2.5 * min(counts.values())


def test_labels_are_shuffled_among_the_texts():
    labels = (0,) * 30 + (1,) * 30
    control = control_examples(_examples(*(f"text {n}" for n in range(60)), labels=labels), "scrambled")
    assert control.labels != labels and Counter(control.labels) == Counter(labels)
    assert control.notes == ("the labels are shuffled among the texts",)
    assert control.summary() == "60 examples, 2 classes (no 30, yes 30), its characters shuffled"


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_control_of_the_default_text_and_of_ones_own(kind, tmp_path):
    assert len(load_examples(kind).texts[0]) == len(documentation().texts[0])
    assert load_examples(kind).sha256 == documentation().sha256
    path = tmp_path / "a:b.txt"
    path.write_text(_WORDS, encoding="utf-8")
    control = load_examples(f"{kind}:{path}")
    assert control.texts == control_examples(_examples(_WORDS), kind).texts
    assert control.path == str(path) and control.summary().endswith(CONTROLS[kind][1])


def test_a_path_of_that_very_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("scrambled", "uniform:x.txt") if os.name == "posix" else ("scrambled",):
        (tmp_path / name).write_text("as it is")
        assert load_examples(name).texts == ("as it is",)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ("scrambled:", ValueRangeError, "No path follows 'scrambled:'; give `data` as scrambled:reviews.txt"),
        ("scrambled:nowhere.txt", FileError, "No such file or directory: nowhere.txt"),
        ("scrambled-word:x.txt", FileError, "give `data` as scrambled-words:x.txt"),
        (
            "unifrom",
            FileError,
            "No such file or directory: unifrom; check the path, or give `data` as uniform",
        ),
        ("nowhere.txt", FileError, "^No such file or directory: nowhere.txt; check the path$"),
    ],
)
def test_names_that_are_nothing(data, kind, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        load_examples(data)


def test_help_topics_have_no_columns():
    with pytest.raises(FormatError, match="help topics have no columns, and the column review was named"):
        load_examples("scrambled", text_column="review")
